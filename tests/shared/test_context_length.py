import sys
import unicodedata
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from queue_support import make_job

from shared.context_length import RARE_BYTES, least_bytes, output_limit
from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.jobs import Endpoint, Job, SamplingParams

DECOMPOSED = [
    "e\u0302\u0301",
    "K\u030c",
    "\u212a",
    "\u1fbe\u0308\u0301",
    "\u1100\u1161\u11a8",
    "\u0344",
]
TEXTS = st.lists(
    st.one_of(st.text(), st.sampled_from([*DECOMPOSED, "\u2581 ", "a", "\u4f60"]))
).map("".join)


def job(endpoint: Endpoint = Endpoint.CHAT, *, max_tokens: int | None = None) -> Job:
    sampling = SamplingParams(seed=1, max_tokens=max_tokens)
    return make_job(endpoint=endpoint, sampling=sampling, prompts=())


def refusal(job: Job, num_tokens: int, *, is_least: bool = False) -> JobError:
    with pytest.raises(JobFailed) as caught:
        output_limit(job, num_tokens, 100, is_least=is_least)
    return caught.value.error


@pytest.mark.parametrize(("max_tokens", "limit"), [(None, 70), (80, 70), (60, 60)])
def test_a_chat_answer_may_fill_the_context(max_tokens: int | None, limit: int) -> None:
    assert output_limit(job(max_tokens=max_tokens), 30, 100) == limit


def test_a_completion_over_the_context_is_refused_with_the_numbers() -> None:
    error = refusal(job(Endpoint.COMPLETIONS, max_tokens=80), 30)
    assert error.code is ErrorCode.CONTEXT_LENGTH_EXCEEDED
    assert all(number in error.message for number in ("100", "110", "30", "80"))
    assert "at least" not in error.message


@pytest.mark.parametrize(("endpoint", "param"), [("chat", "messages"), ("completions", "prompt")])
def test_a_prompt_that_fills_the_context_is_refused(endpoint: str, param: str) -> None:
    error = refusal(job(Endpoint(endpoint), max_tokens=5), 100)
    assert (error.code, error.param) == (ErrorCode.CONTEXT_LENGTH_EXCEEDED, param)
    assert "maximum context length is 100 tokens" in error.message


@pytest.mark.parametrize("num_tokens", [99, 100])
def test_a_refusal_by_a_lower_bound_of_tokens_says_so(num_tokens: int) -> None:
    error = refusal(job(Endpoint.COMPLETIONS, max_tokens=5), num_tokens, is_least=True)
    assert f"at least {num_tokens}" in error.message


def test_ascii_counts_in_full_and_a_space_mark_as_one_byte() -> None:
    assert least_bytes("one two") == 7
    assert least_bytes("\u4f60\u597d caf\u00e9") == 6 + 4 + 2
    assert least_bytes("\u2581\u2581") == 2
    assert least_bytes("one\x04\ttwo") == 7


@given(TEXTS)
def test_composing_keeps_at_least_the_counted_bytes(text: str) -> None:
    composed = unicodedata.normalize("NFC", text)
    assert least_bytes(text) <= _num_bytes(composed.replace("\u2581", " "))
    assert least_bytes(composed) <= _num_bytes(composed)


@given(TEXTS, TEXTS)
def test_composing_in_pieces_keeps_at_least_the_counted_bytes(one: str, other: str) -> None:
    pieces = [unicodedata.normalize("NFC", piece) for piece in (one, other)]
    assert least_bytes(one + other) <= sum(map(_num_bytes, pieces))


def test_no_composed_character_represents_more_than_the_counted_bytes() -> None:
    """An ASCII byte has the weight 4, any other byte 1. No character outweighs its NFD parts.

    It follows that the weight of a text is at most four times the bytes of its composed form.
    """
    characters = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c <= 0xDFFF]
    parts = {c: d for c in characters if (d := unicodedata.normalize("NFD", c)) != c}
    weight: dict[str, int] = defaultdict(int)
    for character in characters:
        if len(part := parts.get(character, character)) == 1:
            weight[part] = max(weight[part], _weight(character))
    for character, each in parts.items():
        total = sum(weight[part] for part in each)
        assert _weight(character) <= total
        composed = unicodedata.normalize("NFC", character)
        assert total <= 4 * _num_bytes(composed)


def _weight(character: str) -> int:
    return _num_bytes(character) * (4 if character.isascii() else 1)


def _num_bytes(text: str) -> int:
    return len(text.encode().translate(None, RARE_BYTES))
