"""Which steps verify drafts, and how many tokens a draft has."""

from typing import Any

import pytest
from engine_requests import BLOCK, make_request

from worker.engine.block_manager import BlockManager
from worker.engine.draft import Draft
from worker.engine.drafter import Drafter
from worker.engine.request import Request, RequestStatus
from worker.engine.scheduler import Chunk, split, step_size
from worker.engine.speculation.policy import StepDurations

MAX_MODEL_LEN = 60


@pytest.fixture(autouse=True)
def _free_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StepDurations, "estimate", lambda *_: 1.0)


def repeating(name: str = "a", num_tokens: int = 13, **changed: Any) -> Request:
    """Return a running request all of whose tokens but the last are computed."""
    computed = {"num_computed_tokens": num_tokens - 1, "status": RequestStatus.RUNNING}
    prompt = [5 + number % 3 for number in range(num_tokens)]
    return make_request(name, prompt, **{**computed, **changed})


def decode_of(request: Request) -> Chunk:
    start = request.num_computed_tokens
    return Chunk(request, start, request.num_tokens - start, samples=True)


def drafter_of(num_blocks: int = 100, max_rows: int = 100) -> tuple[Drafter, BlockManager]:
    blocks = BlockManager(num_blocks, BLOCK)
    return Drafter(blocks, max_model_len=MAX_MODEL_LEN, max_rows=max_rows), blocks


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


def test_a_draft_leaves_room_for_the_token_after_it() -> None:
    assert len(drafted(repeating(max_tokens=4))) == 3
    assert drafted(repeating(max_tokens=1)) == ()
    assert len(drafted(repeating(num_tokens=MAX_MODEL_LEN - 3))) == 2
    assert drafted(repeating(num_tokens=MAX_MODEL_LEN - 1)) == ()


def test_a_draft_ends_before_a_stop_token() -> None:
    assert drafted(repeating(stop_ids=frozenset({5}))) == (6, 7)


def test_a_draft_takes_only_free_blocks() -> None:
    request, other = repeating(), repeating("b")
    drafter, blocks = drafter_of(num_blocks=9)
    blocks.allocate(request, request.num_tokens)
    blocks.allocate(other, other.num_tokens)
    chunks = drafter.extend([decode_of(request), decode_of(other)])
    assert [len(chunk.draft) for chunk in chunks] == [7, 3]
    assert blocks.num_free == 0


def test_a_step_with_many_rows_or_a_prompt_has_no_drafts() -> None:
    drafter, _ = drafter_of()
    decodes = [decode_of(repeating(str(number))) for number in range(16)]
    assert drafter.extend(decodes) == decodes
    prompt = Chunk(repeating("b", num_computed_tokens=0), 0, 13, samples=True)
    cut = Chunk(repeating("b", num_computed_tokens=0), 0, 1, samples=False)
    for other in (prompt, cut):
        assert drafter.extend([decodes[0], other]) == [decodes[0], other]
    assert drafter.num_drafted_tokens == 0
    assert decodes[0].request.lookup is None


def test_a_step_never_exceeds_its_maximum_number_of_tokens() -> None:
    drafter, _ = drafter_of(max_rows=5)
    chunks = drafter.extend([decode_of(repeating(str(number))) for number in range(2)])
    assert sum(chunk.num_tokens for chunk in chunks) == 5


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
