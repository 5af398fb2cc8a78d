"""Which events add to a transcript, and which contradict it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from followed_job import ID, STOP, tokens

from api.follow.transcript import ChoiceTranscript, Delta, Diverged, Transcript, result_events
from shared.protocol.events import Retry, Tokens
from shared.protocol.jobs import JobState
from shared.protocol.logprobs import PositionLogprobs, TokenLogprob
from shared.protocol.results import Choice, FinishReason, Result

SCORES = '[null,{"5":{"logprob":-1.0,"rank":1,"decoded_token":"q"}}]'


def transcript_of(*events: Tokens, num_choices: int = 1) -> Transcript:
    transcript = Transcript(num_choices)
    for event in events:
        assert transcript.can_accept(event)
        transcript.accept(event)
    return transcript


def position(token: str) -> PositionLogprobs:
    chosen = TokenLogprob(token=token, logprob=-1.0, bytes=tuple(token.encode()))
    return PositionLogprobs(chosen=chosen, top=(), offset=0)


def lettered(index: int, text: str, finish: FinishReason | None = None) -> Tokens:
    """Return tokens of one letter each with logprobs, after the echoed prompt `p`."""
    return Tokens(
        job=ID,
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


def test_an_answer_without_tokens_has_the_prompt_in_its_only_delta() -> None:
    transcript = Transcript(1, has_ids=True)
    event = Tokens(
        job=ID,
        try_=1,
        choice=0,
        index=0,
        ids=(),
        text="p",
        finish=FinishReason.LENGTH,
        prompt_logprobs=(position("p"),),
        prompt_ids=(5,),
        prompt_scores=SCORES,
    )
    delta = transcript.accept(event)
    assert delta == Delta(0, "p", FinishReason.LENGTH, (position("p"),), (), (5,))
    assert transcript.can_accept(event)
    assert transcript.accept(replace(event, try_=2)) is None
    assert transcript.is_complete
    assert transcript.num_tokens == 0
    assert transcript.choices[0].prompt_scores == SCORES


def test_each_token_is_accepted_once_with_logprobs_after_those_of_the_prompt() -> None:
    transcript = Transcript(1)
    events = [
        lettered(0, "ab"),
        lettered(2, "c"),
        lettered(1, "b"),
        lettered(0, "abcd"),
        lettered(4, "e", STOP),
    ]
    deltas = [transcript.accept(event) for event in events]
    assert [letters(d.logprobs) if d else None for d in deltas] == ["pab", "c", None, "d", "e"]
    assert letters(transcript.choices[0].logprobs) == "pabcde"


def test_the_choices_of_a_result_have_logprobs() -> None:
    choice = Choice(
        text="ab",
        finish=STOP,
        ids=(97, 98),
        logprobs=(position("a"), position("b")),
        prompt_logprobs=(position("p"),),
        prompt_scores=SCORES,
    )
    result = Result(job=ID, state=JobState.DONE, choices=(choice,))
    followed = transcript_of(*result_events(result)).choices[0]
    assert letters(followed.logprobs) == "pab"
    assert followed.prompt_scores == ChoiceTranscript.of(choice).prompt_scores == SCORES


def test_scores_of_the_prompt_come_with_the_first_tokens() -> None:
    first = replace(tokens(0, (1,), "a"), prompt_scores=SCORES)
    transcript = transcript_of(first, tokens(1, (2,), "b"), first)
    assert transcript.choices[0].prompt_scores == SCORES


def test_tokens_in_order_are_accepted() -> None:
    transcript = Transcript(1)
    assert transcript.accept(tokens(0, (1,), "a")) == Delta(0, "a", None)
    assert transcript.accept(tokens(1, (2, 3), "bc", STOP)) == Delta(0, "bc", STOP)
    assert transcript.choices[0].text == "abc"
    assert transcript.is_complete
    assert transcript.num_tokens == 3


def test_a_known_token_is_dropped() -> None:
    transcript = transcript_of(tokens(0, (1,), "a"), tokens(1, (2,), "b"))
    assert transcript.accept(tokens(1, (2,), "b")) is None
    assert transcript.accept(tokens(0, (1,), "a")) is None
    assert transcript.choices[0].text == "ab"


def test_a_different_token_at_a_known_index_is_a_divergence() -> None:
    transcript = transcript_of(tokens(0, (1, 2), "ab"))
    with pytest.raises(Diverged):
        transcript.accept(tokens(1, (9,), "x"))


def test_a_divergence_in_the_known_part_of_an_event_is_found() -> None:
    transcript = transcript_of(tokens(0, (1, 2), "ab"))
    with pytest.raises(Diverged):
        transcript.accept(tokens(0, (1, 9, 3), "axc"))


def test_tokens_after_a_gap_must_wait_for_a_refill() -> None:
    transcript = transcript_of(tokens(0, (1,), "a"))
    assert not transcript.can_accept(tokens(2, (3,), "c"))


def test_a_refill_from_the_start_adds_only_new_tokens() -> None:
    transcript = transcript_of(tokens(0, (1,), "a"))
    assert transcript.accept(tokens(0, (1, 2, 3), "abc")) == Delta(0, "bc", None)
    assert transcript.can_accept(tokens(3, (4,), "d"))


def test_a_refill_without_new_tokens_adds_nothing() -> None:
    transcript = transcript_of(tokens(0, (1, 2, 3), "abc"))
    assert transcript.accept(tokens(0, (1, 2), "ab")) is None
    assert transcript.choices[0].text == "abc"


def test_an_event_that_starts_in_the_middle_and_is_partly_new_needs_a_refill() -> None:
    """The text of an event can't be divided between its tokens."""
    transcript = transcript_of(tokens(0, (1, 2), "ab"))
    assert not transcript.can_accept(tokens(1, (2, 3), "bc"))


def test_text_that_was_held_back_arrives_with_the_finish() -> None:
    transcript = transcript_of(tokens(0, (1,), ""))
    assert transcript.accept(tokens(1, (), "tail", STOP)) == Delta(0, "tail", STOP)
    assert transcript.accept(tokens(1, (), "tail", STOP)) is None
    assert transcript.choices[0].text == "tail"


def test_a_refill_adds_the_finish_of_a_choice_without_new_tokens() -> None:
    transcript = transcript_of(tokens(0, (1, 2), "a"))
    assert transcript.accept(tokens(0, (1, 2), "ab", STOP)) == Delta(0, "b", STOP)


def test_events_of_a_try_that_ended_are_void() -> None:
    transcript = transcript_of(tokens(0, (1,), "a"))
    transcript.void(Retry(job=ID, try_=1))
    assert transcript.is_void(tokens(1, (2,), "b"))
    assert not transcript.is_void(tokens(1, (2,), "b", try_=2))


def test_events_of_a_later_try_make_earlier_ones_void() -> None:
    transcript = transcript_of(tokens(0, (1,), "a", try_=3))
    assert transcript.is_void(tokens(1, (2,), "b", try_=2))


def test_choices_are_independent() -> None:
    transcript = transcript_of(tokens(0, (1,), "a", STOP, choice=1), num_choices=2)
    assert transcript.can_accept(tokens(0, (7,), "x", choice=0))
    assert not transcript.is_complete


def test_a_result_is_read_as_one_event_per_choice() -> None:
    result = Result(
        job=ID,
        state=JobState.DONE,
        choices=(
            Choice(text="ab", finish=STOP, ids=(1, 2)),
            Choice(text="c", finish=FinishReason.LENGTH, ids=(3,)),
        ),
    )
    transcript = transcript_of(*result_events(result), num_choices=2)
    assert [choice.text for choice in transcript.choices] == ["ab", "c"]
    assert transcript.is_complete
