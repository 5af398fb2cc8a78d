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


A, AB, ABC = (tokens(0, (1, 2, 3)[:num], "abc"[:num]) for num in (1, 2, 3))
B = tokens(1, (2,), "b")
HELD, TAIL = tokens(0, (1,), ""), tokens(1, (), "tail", STOP)


@pytest.mark.parametrize(
    ("before", "event", "delta"),
    [
        ((A, B), B, None),
        ((A, B), A, None),
        ((A,), ABC, Delta(0, "bc", None)),
        ((ABC,), AB, None),
        ((HELD,), TAIL, Delta(0, "tail", STOP)),
        ((HELD, TAIL), TAIL, None),
        ((tokens(0, (1, 2), "a"),), tokens(0, (1, 2), "ab", STOP), Delta(0, "b", STOP)),
    ],
)
def test_only_what_is_new_in_an_event_is_added(
    before: tuple[Tokens, ...], event: Tokens, delta: Delta | None
) -> None:
    transcript = transcript_of(*before)
    text = transcript.choices[0].text
    assert transcript.can_accept(event)
    assert transcript.accept(event) == delta
    assert transcript.choices[0].text == text + (delta.text if delta else "")


@pytest.mark.parametrize("event", [tokens(1, (9,), "x"), tokens(0, (1, 9, 3), "axc")])
def test_a_different_token_at_a_known_index_is_a_divergence(event: Tokens) -> None:
    with pytest.raises(Diverged):
        transcript_of(AB).accept(event)


@pytest.mark.parametrize("event", [tokens(3, (4,), "d"), tokens(1, (2, 3), "bc")])
def test_an_event_after_a_gap_or_from_within_the_known_tokens_needs_a_refill(event: Tokens) -> None:
    """The text of an event can't be divided between its tokens."""
    transcript = transcript_of(AB)
    assert not transcript.can_accept(event)
    transcript.accept(ABC)
    assert transcript.can_accept(tokens(3, (4,), "d"))


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
