"""The checker accepts exactly the texts that claims of one job can have produced."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.protocol.ids import AdapterVersion
from worker.engine_simulated.checker import Fault, Verdict, check
from worker.engine_simulated.tokens import (
    NUM_EPOCHS,
    TEXT_CHARS,
    State,
    chat_text,
    first_state,
    next_step,
    prompt_ids,
    resume_state,
    token_text,
)

VERSION = AdapterVersion("a@0123456789ab")
PROMPT = prompt_ids("hello")
SEED = 7

EPOCHS = st.integers(0, 2**53)
CLAIMS = st.lists(st.tuples(EPOCHS, st.integers(1, 12)), min_size=1, max_size=5)
"""Claims of one job: the epoch of each, and the number of tokens that it computes."""


def tokens_of(claims: Sequence[tuple[int, int]], start: State | None = None) -> list[str]:
    """Return the texts of the tokens that these claims compute, one after the other."""
    state = first_state(VERSION, PROMPT, seed=SEED) if start is None else start
    tokens = []
    for epoch, count in claims:
        for _ in range(count):
            step = next_step(state, epoch)
            state = step.state
            tokens.append(token_text(step.token_id))
    return tokens


def verdict_of(tokens: Sequence[str], num_tokens: int | None = None) -> Verdict:
    return check("".join(tokens), version=VERSION, prompt=PROMPT, seed=SEED, num_tokens=num_tokens)


def fault_of(tokens: Sequence[str], num_tokens: int | None = None) -> tuple[Fault, int] | None:
    violation = verdict_of(tokens, num_tokens).violation
    return (violation.fault, violation.index) if violation else None


@given(CLAIMS)
def test_a_text_of_one_or_more_claims_is_right(claims: list[tuple[int, int]]) -> None:
    tokens = tokens_of(claims)
    verdict = verdict_of(tokens, len(tokens))
    assert verdict.violation is None
    assert verdict.num_tokens == len(tokens)
    epochs = [epoch % NUM_EPOCHS for epoch, _ in claims]
    changes = [e for i, e in enumerate(epochs) if i == 0 or e != epochs[i - 1]]
    assert list(verdict.epochs) == changes


@given(CLAIMS, st.data())
def test_missing_repeated_and_swapped_tokens_are_detected(
    claims: list[tuple[int, int]], data: st.DataObject
) -> None:
    tokens = tokens_of([*claims, (1, 1)])
    at = data.draw(st.integers(0, len(tokens) - 2))
    assert fault_of(tokens[:at] + tokens[at + 1 :], len(tokens))[1] == at
    assert fault_of(tokens[: at + 1] + tokens[at:]) == (Fault.REPETITION, at + 1)
    swapped = [*tokens[:at], tokens[at + 1], tokens[at], *tokens[at + 2 :]]
    assert fault_of(swapped)[1] == at


@given(EPOCHS, EPOCHS, st.integers(0, 10), st.integers(1, 10), st.integers(1, 10))
def test_the_rest_of_another_claims_text_is_a_splice(
    first: int, second: int, num_common: int, num_first: int, num_second: int
) -> None:
    """The first claim goes on, although a second one has continued after the common tokens."""
    common = tokens_of([(first, num_common)])
    old = tokens_of([(first, num_common + num_first + num_second)])
    ids = [int(token, 16) + (1 << 32) for token in common]
    start = resume_state(first_state(VERSION, PROMPT, seed=SEED), ids)
    new = tokens_of([(second, num_second)], start)
    spliced = common + new + old[num_common + num_second :]
    index = num_common + num_second
    is_same_epoch = first % NUM_EPOCHS == second % NUM_EPOCHS
    found = fault_of(spliced)
    assert (found and found[1]) == (None if is_same_epoch else index)


@pytest.mark.parametrize(
    "other",
    [
        first_state(AdapterVersion("b@0123456789ab"), PROMPT, seed=SEED),
        first_state(VERSION, prompt_ids("hallo"), seed=SEED),
        first_state(VERSION, PROMPT, seed=SEED + 1),
        first_state(VERSION, PROMPT, seed=SEED, choice=1),
    ],
    ids=["version", "prompt", "seed", "choice"],
)
def test_a_text_of_another_job_is_a_splice(other: State) -> None:
    assert fault_of(tokens_of([(1, 5)], other)) == (Fault.SPLICE, 0)


def test_gaps_and_splices_are_named_and_too_few_and_too_many_tokens_are_detected() -> None:
    tokens = tokens_of([(1, 20)])
    violation = verdict_of(tokens[:5] + tokens[12:]).violation
    assert (violation.fault, violation.index) == (Fault.GAP, 5)
    assert str(violation) == f"gap at token 5: 7 tokens are missing before {tokens[12]}"
    violation = verdict_of(tokens_of([(1, 5), (2, 5)]) + tokens[10:]).violation
    assert str(violation) == f"splice at token 10: {tokens[10]} belongs to another history"
    assert fault_of(tokens, 21) == (Fault.GAP, 20)
    assert fault_of(tokens, 4) == (Fault.EXCESS, 4)


@pytest.mark.parametrize("text", ["zzzzzzzz", "0123", "0123456789", "ABCDEF01", "     1-1"])
def test_a_text_that_is_no_token_is_malformed(text: str) -> None:
    tokens = tokens_of([(1, 3)])
    assert fault_of([*tokens, text[:TEXT_CHARS]]) in [(Fault.MALFORMED, 3), (Fault.SPLICE, 3)]
    assert verdict_of([*tokens, text]).violation is not None


def test_a_stop_string_may_cut_the_last_token() -> None:
    text = "".join(tokens_of([(1, 5)]))[:-3]
    fields = {"version": VERSION, "prompt": PROMPT, "seed": SEED}
    cut = check(text, **fields, may_be_cut=True)  # type: ignore[arg-type]
    assert (cut.violation, cut.num_tokens) == (None, 4)
    whole = check(text, **fields).violation  # type: ignore[arg-type]
    assert whole.fault is Fault.MALFORMED


def test_a_chat_is_its_roles_and_contents() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]
    assert chat_text(messages) == "system: Be brief.\nuser: a\nb\nassistant: "
