"""Transitions of the follower's state machine, as tables."""

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
from shared.errors import ErrorCode, JobError
from shared.protocol.jobs import JobState
from shared.protocol.results import Result, Usage

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
