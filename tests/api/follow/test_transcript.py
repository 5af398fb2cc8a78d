from collections.abc import Sequence

import pytest

from api.follow.transcript import Delta, Diverged, Transcript, whole_choices
from shared.protocol.events import Retry, Tokens
from shared.protocol.ids import JobId
from shared.protocol.jobs import JobState
from shared.protocol.logprobs import PositionLogprobs, TokenLogprob
from shared.protocol.results import Choice, FinishReason, Result

JOB = JobId("j")
STOP = FinishReason.STOP


def tokens(
    index: int,
    ids: tuple[int, ...],
    text: str,
    finish: FinishReason | None = None,
    *,
    try_: int = 1,
    choice: int = 0,
) -> Tokens:
    return Tokens(job=JOB, try_=try_, choice=choice, index=index, ids=ids, text=text, finish=finish)


def shown(*events: Tokens, num_choices: int = 1) -> Transcript:
    transcript = Transcript(num_choices)
    for event in events:
        assert transcript.can_accept(event)
        transcript.accept(event)
    return transcript


def position(token: str) -> PositionLogprobs:
    chosen = TokenLogprob(token=token, logprob=-1.0, bytes=tuple(token.encode()))
    return PositionLogprobs(chosen=chosen, top=(), offset=0)


def told(index: int, text: str, finish: FinishReason | None = None) -> Tokens:
    """Tokens of one letter each, with logprobs, behind the echo of the prompt `p`."""
    return Tokens(
        job=JOB,
        try_=1,
        choice=0,
        index=index,
        ids=tuple(text.encode()),
        text=text,
        finish=finish,
        logprobs=tuple(map(position, text)),
        prompt_logprobs=(position("p"),) if index == 0 else (),
    )


def letters(positions: Sequence[PositionLogprobs]) -> str:
    return "".join(p.chosen.token for p in positions)


def test_each_token_is_told_once_with_its_logprobs_behind_those_of_the_prompt() -> None:
    transcript = Transcript(1)
    events = [told(0, "ab"), told(2, "c"), told(1, "b"), told(0, "abcd"), told(4, "e", STOP)]
    deltas = [transcript.accept(event) for event in events]
    assert [letters(d.logprobs) if d else None for d in deltas] == ["pab", "c", None, "d", "e"]
    assert letters(transcript.choices[0].logprobs) == "pabcde"


def test_a_whole_choice_tells_its_logprobs() -> None:
    choice = Choice(
        text="ab",
        finish=STOP,
        ids=(97, 98),
        logprobs=(position("a"), position("b")),
        prompt_logprobs=(position("p"),),
    )
    result = Result(job=JOB, state=JobState.DONE, choices=(choice,))
    assert letters(shown(*whole_choices(result)).choices[0].logprobs) == "pab"


def test_tokens_in_order_are_shown_as_they_come() -> None:
    transcript = Transcript(1)
    assert transcript.accept(tokens(0, (1,), "a")) == Delta(0, "a", None)
    assert transcript.accept(tokens(1, (2, 3), "bc", STOP)) == Delta(0, "bc", STOP)
    assert transcript.choices[0].text == "abc"
    assert transcript.is_complete
    assert transcript.num_tokens == 3


def test_a_token_that_was_shown_is_dropped() -> None:
    transcript = shown(tokens(0, (1,), "a"), tokens(1, (2,), "b"))
    assert transcript.accept(tokens(1, (2,), "b")) is None
    assert transcript.accept(tokens(0, (1,), "a")) is None
    assert transcript.choices[0].text == "ab"


def test_another_token_at_an_index_that_was_shown_is_a_contradiction() -> None:
    transcript = shown(tokens(0, (1, 2), "ab"))
    with pytest.raises(Diverged):
        transcript.accept(tokens(1, (9,), "x"))


def test_a_contradiction_is_found_in_the_old_part_of_an_event() -> None:
    transcript = shown(tokens(0, (1, 2), "ab"))
    with pytest.raises(Diverged):
        transcript.accept(tokens(0, (1, 9, 3), "axc"))


def test_tokens_behind_a_gap_must_wait_for_a_refill() -> None:
    transcript = shown(tokens(0, (1,), "a"))
    assert not transcript.can_accept(tokens(2, (3,), "c"))


def test_a_refill_from_the_start_shows_only_what_is_new() -> None:
    transcript = shown(tokens(0, (1,), "a"))
    assert transcript.accept(tokens(0, (1, 2, 3), "abc")) == Delta(0, "bc", None)
    assert transcript.can_accept(tokens(3, (4,), "d"))


def test_a_refill_that_is_behind_shows_nothing() -> None:
    transcript = shown(tokens(0, (1, 2, 3), "abc"))
    assert transcript.accept(tokens(0, (1, 2), "ab")) is None
    assert transcript.choices[0].text == "abc"


def test_an_event_that_is_partly_new_in_the_middle_needs_a_refill() -> None:
    """Its text can't be divided between its tokens."""
    transcript = shown(tokens(0, (1, 2), "ab"))
    assert not transcript.can_accept(tokens(1, (2, 3), "bc"))


def test_text_that_was_held_back_comes_with_the_finish() -> None:
    transcript = shown(tokens(0, (1,), ""))
    assert transcript.accept(tokens(1, (), "tail", STOP)) == Delta(0, "tail", STOP)
    assert transcript.accept(tokens(1, (), "tail", STOP)) is None
    assert transcript.choices[0].text == "tail"


def test_a_refill_brings_the_finish_of_a_choice_whose_tokens_were_all_shown() -> None:
    transcript = shown(tokens(0, (1, 2), "a"))
    assert transcript.accept(tokens(0, (1, 2), "ab", STOP)) == Delta(0, "b", STOP)


def test_events_of_a_try_that_ended_are_void() -> None:
    transcript = shown(tokens(0, (1,), "a"))
    transcript.void(Retry(job=JOB, try_=1))
    assert transcript.is_void(tokens(1, (2,), "b"))
    assert not transcript.is_void(tokens(1, (2,), "b", try_=2))


def test_events_of_a_later_try_make_earlier_ones_void() -> None:
    transcript = shown(tokens(0, (1,), "a", try_=3))
    assert transcript.is_void(tokens(1, (2,), "b", try_=2))


def test_choices_are_independent() -> None:
    transcript = shown(tokens(0, (1,), "a", STOP, choice=1), num_choices=2)
    assert transcript.can_accept(tokens(0, (7,), "x", choice=0))
    assert not transcript.is_complete


def test_a_result_is_read_as_one_event_per_choice() -> None:
    result = Result(
        job=JOB,
        state=JobState.DONE,
        choices=(
            Choice(text="ab", finish=STOP, ids=(1, 2)),
            Choice(text="c", finish=FinishReason.LENGTH, ids=(3,)),
        ),
    )
    transcript = shown(*whole_choices(result), num_choices=2)
    assert [choice.text for choice in transcript.choices] == ["ab", "c"]
    assert transcript.is_complete
