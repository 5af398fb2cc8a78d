"""The follower's state machine as tables, and which events its transcript takes."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from followed_job import ADMITTED, ID, RETRY, STOP, USAGE, Machine, done, end, tokens

from api.follow.follow_state import (
    FINAL_STATES,
    Action,
    Checkpoints,
    DeadlinePassed,
    FollowState,
    Signal,
    StoredJob,
    Timer,
)
from api.follow.transcript import ChoiceTranscript, Delta, Transcript, result_events
from shared.errors import ErrorCode, JobError
from shared.protocol.events import Tokens
from shared.protocol.jobs import JobState
from shared.protocol.logprobs import PositionLogprobs, TokenLogprob
from shared.protocol.results import Choice, FinishReason, Result, Usage

STREAMING, GAP, COMPLETING = FollowState.STREAMING, FollowState.GAP, FollowState.COMPLETING
DONE, FAILED, ABANDONED = FollowState.DONE, FollowState.FAILED, FollowState.ABANDONED
READ_JOB, READ_CHECKPOINTS = Action.READ_JOB, Action.READ_CHECKPOINTS

A = tokens(0, (1,), "a")
B = tokens(1, (2,), "b", STOP)
C = tokens(2, (3,), "c")
AB = tokens(0, (1, 2), "ab")
BROKEN = JobError(code=ErrorCode.INTERNAL, message="broken")
RUNNING = StoredJob(JobState.RUNNING)


@pytest.mark.parametrize(
    ("signals", "state", "text", "action"),
    [
        # the last signal, the state after it, all text so far, the last action
        ((A,), STREAMING, "a", None),
        ((A, A), STREAMING, "a", None),
        ((A, B), STREAMING, "ab", None),
        ((ADMITTED,), STREAMING, "", None),
        ((A, Timer.REFILL), STREAMING, "a", None),
        ((A, Timer.SILENCE), STREAMING, "a", READ_JOB),
        ((A, Timer.SILENCE, RUNNING), STREAMING, "a", None),
        ((A, RETRY, tokens(1, (9,), "x")), STREAMING, "a", None),
        ((A, RETRY, tokens(1, (2,), "b", try_=2)), STREAMING, "ab", None),
        ((tokens(0, (1,), "a", try_=3), tokens(1, (2,), "b", try_=2)), STREAMING, "a", None),
        ((A, C), GAP, "a", None),
        ((A, C, Timer.REFILL), GAP, "a", READ_CHECKPOINTS),
        ((A, C, Checkpoints(())), GAP, "a", None),
        ((A, C, Checkpoints((A,))), GAP, "a", None),
        ((A, C, Checkpoints((AB,))), STREAMING, "abc", None),
        ((A, C, Timer.SILENCE, RUNNING), GAP, "a", None),
        ((Timer.SILENCE, StoredJob(JobState.RUNNING, checkpoints=(A,)), B), STREAMING, "ab", None),
        ((C, StoredJob(JobState.RUNNING, checkpoints=(AB,))), STREAMING, "abc", None),
        (
            (A, C, Timer.SILENCE, StoredJob(JobState.DONE, None, done("abc", 1, 2, 3))),
            DONE,
            "abc",
            None,
        ),
        ((A, B, end()), DONE, "ab", None),
        ((A, end()), COMPLETING, "a", READ_JOB),
        ((A, end(), RUNNING), COMPLETING, "a", None),
        ((A, end(), Timer.SILENCE), COMPLETING, "a", READ_JOB),
        ((A, end(), StoredJob(JobState.DONE, None, done("ab", 1, 2))), DONE, "ab", None),
        ((A, C, end(), Timer.REFILL), COMPLETING, "a", READ_CHECKPOINTS),
        ((A, C, end(), Checkpoints((AB,))), COMPLETING, "abc", READ_JOB),
        ((A, end(), B), DONE, "ab", None),
    ],
)
def test_a_job_that_succeeds(
    signals: tuple[Signal, ...], state: FollowState, text: str, action: Action | None
) -> None:
    machine = Machine(*signals)
    assert (machine.progress.state, machine.text) == (state, text)
    assert machine.actions[-1] is action
    assert machine.progress.error is None


@pytest.mark.parametrize(
    ("signals", "state", "code"),
    [
        ((A, end(JobState.FAILED, BROKEN)), FAILED, ErrorCode.INTERNAL),
        ((A, end(JobState.FAILED)), FAILED, ErrorCode.INTERNAL),
        ((A, end(JobState.CANCELLED)), FAILED, ErrorCode.CANCELLED),
        ((A, end(JobState.EXPIRED)), FAILED, ErrorCode.DEADLINE_EXCEEDED),
        ((A, end(JobState.DEAD)), FAILED, ErrorCode.POISON_JOB),
        ((RETRY, end(JobState.CANCELLED)), FAILED, ErrorCode.CANCELLED),
        ((A, StoredJob(None)), FAILED, ErrorCode.UNAVAILABLE),
        ((A, StoredJob(JobState.DEAD, BROKEN)), FAILED, ErrorCode.INTERNAL),
        ((A, StoredJob(JobState.EXPIRED)), FAILED, ErrorCode.DEADLINE_EXCEEDED),
        ((A, end(), StoredJob(JobState.DONE)), FAILED, ErrorCode.JOB_NOT_FOUND),
        ((A, DeadlinePassed(10)), ABANDONED, ErrorCode.DEADLINE_EXCEEDED),
        ((A, C, DeadlinePassed(10)), ABANDONED, ErrorCode.DEADLINE_EXCEEDED),
        ((A, end(), DeadlinePassed(10)), ABANDONED, ErrorCode.DEADLINE_EXCEEDED),
        ((AB, tokens(1, (9,), "x", try_=2)), ABANDONED, ErrorCode.RESUME_DIVERGED),
        (
            (A, end(), StoredJob(JobState.DONE, None, done("xb", 9, 2))),
            *(ABANDONED, ErrorCode.RESUME_DIVERGED),
        ),
    ],
)
def test_a_job_that_fails(signals: tuple[Signal, ...], state: FollowState, code: ErrorCode) -> None:
    machine = Machine(*signals)
    assert (machine.progress.state, machine.error_code) == (state, code)
    assert machine.actions[-1] is None


SIGNALS: tuple[Signal, ...] = (
    *(ADMITTED, RETRY, A, C, end(), end(JobState.FAILED), Timer.SILENCE, Timer.REFILL),
    *(DeadlinePassed(10), Checkpoints((AB,)), StoredJob(None)),
)


@pytest.mark.parametrize("final", [(A, B, end()), (end(JobState.FAILED),), (DeadlinePassed(10),)])
def test_a_final_state_ignores_every_signal(final: tuple[Signal, ...]) -> None:
    machine = Machine(*final)
    progress, text = machine.progress, machine.text
    assert progress.state in FINAL_STATES
    for signal in SIGNALS:
        machine.apply(signal)
    assert (machine.progress, machine.text) == (progress, text)
    assert machine.actions[-len(SIGNALS) :] == [None] * len(SIGNALS)


def test_the_stored_tokens_of_a_failed_job_precede_its_error() -> None:
    machine = Machine(StoredJob(JobState.FAILED, BROKEN, checkpoints=(AB,)))
    assert (machine.text, machine.progress.error) == ("ab", BROKEN)


def test_the_deadline_is_in_the_error_message() -> None:
    error = Machine(DeadlinePassed(1500)).progress.error
    assert error is not None
    assert "within 1.5 s" in error.message
    error = Machine(DeadlinePassed()).progress.error
    assert error is not None
    assert "before its deadline" in error.message


def test_a_divergence_names_choice_and_index() -> None:
    assert Machine(AB, tokens(0, (1, 9), "ax")).progress.diverged_at == "choice 0, index 0"


def test_updates_before_a_divergence_are_kept() -> None:
    machine = Machine(A, C)
    machine.apply(Checkpoints((AB, tokens(0, (9,), "x"))))
    assert (machine.text, machine.progress.state) == ("ab", ABANDONED)


def test_usage_comes_from_the_end_of_the_job_or_is_counted() -> None:
    assert Machine(A, B, end()).progress.usage == USAGE
    stored = StoredJob(JobState.DONE, None, done("ab", 1, 2))
    assert Machine(stored).progress.usage == USAGE
    without_usage = Result(job=ID, state=JobState.DONE, choices=done("ab", 1, 2).choices)
    counted = Machine(ADMITTED, StoredJob(JobState.DONE, None, without_usage)).progress.usage
    assert counted == Usage(prompt_tokens=3, completion_tokens=2)


def test_if_too_many_events_are_pending_the_newest_of_each_choice_is_kept() -> None:
    events = [tokens(index, (index,), "x", choice=index % 2) for index in range(2, 6)]
    machine = Machine(*events, num_choices=2, max_pending=3)
    assert machine.progress.pending == (events[2], events[3])
    assert machine.progress.state is GAP


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


ABC, NEXT = tokens(0, (1, 2, 3), "abc"), tokens(1, (2,), "b")
HELD, TAIL = tokens(0, (1,), ""), tokens(1, (), "tail", STOP)


@pytest.mark.parametrize(
    ("before", "event", "delta"),
    [
        ((A, NEXT), NEXT, None),
        ((A, NEXT), A, None),
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


@pytest.mark.parametrize("event", [tokens(3, (4,), "d"), tokens(1, (2, 3), "bc")])
def test_an_event_after_a_gap_or_from_within_the_known_tokens_needs_a_refill(event: Tokens) -> None:
    """The text of an event can't be divided between its tokens."""
    transcript = transcript_of(AB)
    assert not transcript.can_accept(event)
    transcript.accept(ABC)
    assert transcript.can_accept(tokens(3, (4,), "d"))
