"""How many draft tokens a step verifies, and which ones."""

from collections.abc import Sequence
from typing import Any

from engine_requests import BLOCK, make_request
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.block_manager import BlockManager
from worker.engine.draft import Draft
from worker.engine.drafter import Drafter
from worker.engine.pace import StepSize
from worker.engine.request import Request, RequestStatus
from worker.engine.scheduler import Chunk, split, step_size
from worker.engine.speculation.lookup import SIZES, NgramIndex, PromptLookup
from worker.engine.speculation.policy import (
    MAX_AGE,
    MAX_SKIPPED,
    Acceptance,
    StepDurations,
    draft_lengths,
)


def searched(tokens: Sequence[int]) -> tuple[int, int] | None:
    """Return what `NgramIndex.find` must return for a text."""
    for size in SIZES:
        end = tokens[len(tokens) - size :]
        for position in range(len(tokens) - 1, size - 1, -1):
            if len(tokens) > size and tokens[position - size : position] == end:
                return size, position
    return None


@given(st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=12))
def test_the_latest_occurrence_of_the_longest_ngram_is_found(parts: list[list[int]]) -> None:
    tokens: list[int] = []
    index = NgramIndex()
    for part in parts:
        index.extend(part)
        tokens += part
        assert len(index) == len(tokens)
        assert index.find() == searched(tokens)


def test_a_copy_beyond_the_end_repeats_its_period() -> None:
    index = NgramIndex()
    index.extend([9, 1, 2, 3])
    assert index.copy(1, 7) == [1, 2, 3, 1, 2, 3, 1]
    assert index.copy(3, 3) == [3, 3, 3]


def lookup_of(tokens: Sequence[int]) -> PromptLookup:
    lookup = PromptLookup()
    lookup.extend(tokens)
    return lookup


def test_a_proposal_continues_the_latest_occurrence() -> None:
    assert lookup_of([1, 2, 3, 4, 5, 9, 1, 2, 3]).propose(2) == [4, 5]
    assert lookup_of([1, 2, 3]).propose(2) == []
    assert lookup_of([1, 2, 1, 2]).propose(0) == []


def test_ngrams_of_other_sizes_go_on_while_one_size_backs_off() -> None:
    lookup = lookup_of([1, 2, 3, 4])
    for number in range(25):
        lookup.extend([100 + number, 1])
        if lookup.propose(1):
            lookup.record(1, 0)
    assert lookup.propose(1) == []  # one token in common
    lookup.extend([2, 3])
    assert lookup.propose(1) == [4]  # three tokens in common


MAX_ROWS = 16


def durations(**ms_of: float) -> StepDurations:
    """Return durations of steps, such as `rows_1=10.0`."""
    found = StepDurations()
    for name, ms in ms_of.items():
        found.observe(int(name.removeprefix("rows_")), ms)
    return found


def lengths(
    proposals: list[tuple[int, float]], known: StepDurations, num_rows: int | None = None
) -> list[int]:
    rows = len(proposals) if num_rows is None else num_rows
    return draft_lengths(proposals, known, num_rows=rows, max_rows=MAX_ROWS)


def skipped(acceptance: Acceptance) -> int:
    """Return how many opportunities pass until the next draft."""
    return next(number for number in range(1000) if acceptance.may_draft())


def test_the_rate_follows_the_share_of_accepted_tokens_up_to_the_first_rejected_one() -> None:
    acceptance = Acceptance()
    for _ in range(20):
        acceptance.record(8, 8)
    assert acceptance.rate > 0.95
    high = acceptance.rate
    acceptance.record(8, 0)
    assert acceptance.rate < high
    for _ in range(50):
        acceptance.record(4, 0)
    assert acceptance.rate == Acceptance().rate
    short, long = Acceptance(), Acceptance()
    short.record(2, 1)
    long.record(8, 1)
    assert short.rate == long.rate


def test_rejected_drafts_double_the_pause_and_an_accepted_token_ends_it() -> None:
    acceptance, pauses = Acceptance(), []
    for _ in range(9):
        acceptance.record(3, 0)
        pauses.append(skipped(acceptance))
    assert pauses == [0, 1, 2, 4, 8, 16, 32, MAX_SKIPPED, MAX_SKIPPED]
    acceptance.record(3, 1)
    assert skipped(acceptance) == 0
    acceptance.record(3, 0)
    assert skipped(acceptance) == 0


def test_durations_are_interpolated_and_forgotten_if_no_step_of_that_size_follows() -> None:
    known = durations(rows_1=10.0, rows_5=18.0)
    assert [known.estimate(rows) for rows in (1, 2, 3, 5)] == [10.0, 12.0, 14.0, 18.0]
    assert known.estimate(9) > known.estimate(5)
    known = durations(rows_4=1000.0)
    for _ in range(MAX_AGE):
        known.observe(1, 10.0)
    assert known.estimate(4) > 100.0
    known.observe(1, 10.0)
    assert known.estimate(4) < 20.0


def test_as_many_tokens_are_drafted_as_pay_the_likeliest_first_and_none_in_a_full_step() -> None:
    cheap = durations(rows_1=10.0, rows_9=11.0)
    assert lengths([(8, 0.95)], cheap) == [8]
    assert 1 <= lengths([(8, 0.3)], cheap)[0] < 8
    assert lengths([(8, 0.9)], durations(rows_1=10.0, rows_9=90.0)) == [0]
    costly_second_row = durations(rows_1=10.0, rows_2=20.0, rows_9=21.0)
    assert lengths([(8, 0.95)], costly_second_row) == [8]
    assert lengths([(8, 0.4)], costly_second_row) == [0]
    first, second, third = lengths([(8, 0.9), (0, 0.9), (8, 0.3)], durations(rows_3=10.0))
    assert first > third
    assert second == 0
    free = durations(rows_1=10.0, rows_16=10.0)
    assert lengths([(8, 1.0)] * 16, free) == [0] * 16
    assert sum(lengths([(8, 1.0)] * 10, free)) == 6
    assert lengths([(8, 1.0)], free, num_rows=14) == [2]


@given(
    proposals=st.lists(st.tuples(st.integers(0, 8), st.floats(0.3, 1.0)), max_size=20),
    observed=st.lists(st.tuples(st.integers(1, 16), st.floats(0.1, 1000.0)), max_size=12),
)
def test_lengths_never_exceed_the_proposals_or_the_rows(
    proposals: list[tuple[int, float]], observed: list[tuple[int, float]]
) -> None:
    known = StepDurations()
    for num_rows, ms in observed:
        known.observe(num_rows, ms)
    found = lengths(proposals, known)
    assert len(found) == len(proposals)
    for length, (most, _) in zip(found, proposals, strict=True):
        assert 0 <= length <= most
    assert sum(found) <= max(0, MAX_ROWS - len(proposals))


MAX_MODEL_LEN = 60


def repeating(name: str = "a", num_tokens: int = 13, **changed: Any) -> Request:
    """Return a running request all of whose tokens but the last are computed."""
    computed = {"num_computed_tokens": num_tokens - 1, "status": RequestStatus.RUNNING}
    prompt = [5 + number % 3 for number in range(num_tokens)]
    return make_request(name, prompt, **{**computed, **changed})


def decode_of(request: Request) -> Chunk:
    start = request.num_computed_tokens
    return Chunk(request, start, request.num_tokens - start, samples=True)


def drafter_of(num_blocks: int = 100, max_rows: int = 100) -> tuple[Drafter, BlockManager]:
    """Return a drafter for whom rows cost nothing, and its blocks."""
    blocks = BlockManager(num_blocks, BLOCK)
    drafter = Drafter(blocks, max_model_len=MAX_MODEL_LEN, max_rows=max_rows)
    for num_rows in range(1, max_rows + 1):
        drafter.observe(StepSize(num_rows, 0, 0.0), 1.0)
    return drafter, blocks


def drafted(request: Request) -> tuple[int, ...]:
    """Return the draft of the request's next token, alone in a step."""
    drafter, _ = drafter_of()
    (chunk,) = drafter.extend([decode_of(request)])
    assert drafter.num_drafted_tokens == len(chunk.draft)
    return chunk.draft.token_ids


def test_a_chunk_with_a_draft_has_its_tokens_samples_and_blocks() -> None:
    request = repeating()
    drafter, blocks = drafter_of()
    (chunk,) = drafter.extend([decode_of(request)])
    assert (chunk.start, chunk.num_tokens, chunk.num_samples) == (12, 9, 9)
    assert chunk.draft.token_ids == (6, 7, 5, 6, 7, 5, 6, 7)
    assert chunk.token_ids() == [5, *chunk.draft.token_ids]
    assert len(request.block_table) == 6
    assert blocks.num_free == 94
    assert step_size([chunk]).num_decodes == 9
    assert step_size([chunk]).num_prompt_tokens == 0


def test_a_draft_leaves_room_for_the_token_after_it_and_ends_before_a_stop_token() -> None:
    assert len(drafted(repeating(max_tokens=4))) == 3
    assert drafted(repeating(max_tokens=1)) == ()
    assert len(drafted(repeating(num_tokens=MAX_MODEL_LEN - 3))) == 2
    assert drafted(repeating(num_tokens=MAX_MODEL_LEN - 1)) == ()
    assert drafted(repeating(stop_ids=frozenset({5}))) == (6, 7)


def test_a_draft_takes_only_free_blocks() -> None:
    request, other = repeating(), repeating("b")
    drafter, blocks = drafter_of(num_blocks=9)
    blocks.allocate(request, request.num_tokens)
    blocks.allocate(other, other.num_tokens)
    chunks = drafter.extend([decode_of(request), decode_of(other)])
    assert [len(chunk.draft) for chunk in chunks] == [7, 3]
    assert blocks.num_free == 0


def test_a_step_with_many_rows_or_a_prompt_has_no_drafts_and_others_as_many_as_fit() -> None:
    drafter, _ = drafter_of()
    decodes = [decode_of(repeating(str(number))) for number in range(16)]
    assert drafter.extend(decodes) == decodes
    prompt = Chunk(repeating("b", num_computed_tokens=0), 0, 13, samples=True)
    cut = Chunk(repeating("b", num_computed_tokens=0), 0, 1, samples=False)
    for other in (prompt, cut):
        assert drafter.extend([decodes[0], other]) == [decodes[0], other]
    assert drafter.num_drafted_tokens == 0
    assert decodes[0].request.lookup is None
    drafter, _ = drafter_of(max_rows=5)
    assert sum(chunk.num_tokens for chunk in drafter.extend(decodes[:2])) == 5


def test_a_chunk_that_must_be_split_loses_its_draft() -> None:
    chunks = [
        Chunk(repeating(str(number)), 12, 1 + number, True, Draft((7,) * number))
        for number in range(3)
    ]
    first, rest = split(chunks, 4)
    assert [(c.num_tokens, len(c.draft)) for c in first] == [(1, 0), (2, 1), (1, 0)]
    assert not rest
    first, rest = split(chunks, 1)
    assert [(c.num_tokens, len(c.draft)) for c in first] == [(1, 0)]
    assert [(c.num_tokens, len(c.draft)) for c in rest] == [(1, 0), (3, 2)]


def test_forced_tokens_count_as_tokens_of_an_answer() -> None:
    request = repeating(num_computed_tokens=8, num_new_tokens=5)
    chunk = decode_of(request)
    assert not request.is_prefilling
    assert not chunk.is_prompt
    assert step_size([chunk]).num_decodes == 5
    request.num_new_tokens = 4
    assert request.is_prefilling
    assert chunk.is_prompt
