"""State machine that the front end uses to follow one job. Pure.

`advance` is the transition function. It takes a signal, and returns the next state, updates for
the client and an optional action. `Follower` delivers the signals and performs the actions.

Checkpoints hold the tokens of a running job. The worker regularly writes them to Redis.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto

from api.follow.transcript import Diverged, Transcript, result_events
from api.follow.updates import Update
from shared.errors import ErrorCode, JobError
from shared.protocol.events import Admitted, End, Event, Retry, Tokens
from shared.protocol.jobs import UNFINISHED, JobState
from shared.protocol.results import Result, Usage


class FollowState(Enum):
    """State of the state machine. DONE, FAILED and ABANDONED are final."""

    STREAMING = auto()
    """The client has every token that the front end has received. The job is waiting or running."""
    GAP = auto()
    """Tokens are missing. Later tokens wait until the missing tokens are in the checkpoints."""
    COMPLETING = auto()
    """The job is done, and its stored result has tokens that the client doesn't have yet."""
    DONE = auto()
    """The job is done, and the client has every token."""
    FAILED = auto()
    """The job ended with an error, or Redis no longer has the job."""
    ABANDONED = auto()
    """The front end stopped following the job. The job may still be waiting or running."""


RESUME_DIVERGED = JobError(
    code=ErrorCode.RESUME_DIVERGED,
    message="another worker continued the answer and generated different tokens from those already "
    "sent; send the request again",
)
JOB_LOST = JobError(code=ErrorCode.UNAVAILABLE, message="the job was lost; send it again")
ANSWER_DELETED = JobError(
    code=ErrorCode.JOB_NOT_FOUND,
    message="the answer was deleted, because it was kept for too long; send the request again",
)
FINAL_STATES = frozenset({FollowState.DONE, FollowState.FAILED, FollowState.ABANDONED})


class Timer(Enum):
    """Signals of the two timers of a `Follower`."""

    SILENCE = auto()
    """The follower must read the job from Redis.

    Either no event has arrived for a while, or the job is done but its result couldn't be read.
    """
    REFILL = auto()
    """The follower must read the checkpoints. The signal has no effect if no tokens are missing."""


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """Signal that the deadline of the job has passed."""

    limit_ms: int | None = None
    """Time limit of the job, in milliseconds. The error message states the limit if it is known."""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Signal with the checkpoints that were read after `Action.READ_CHECKPOINTS`."""

    events: tuple[Tokens, ...]
    """One event per choice, with its tokens from index 0. Empty if there are no checkpoints."""


@dataclass(frozen=True, slots=True)
class StoredJob:
    """Signal with the job that was read after `Action.READ_JOB`."""

    state: JobState | None
    """State of the job, or None if Redis has no such job."""
    error: JobError | None = None
    result: Result | None = None
    """Stored result. None while the job is waiting or running, or if Redis has no result."""
    checkpoints: tuple[Tokens, ...] = ()
    """Checkpoints of a job that isn't done, as in `Checkpoints`."""


Signal = Event | Timer | DeadlinePassed | Checkpoints | StoredJob


class Action(Enum):
    """A Redis read that the follower must perform. The reply is the next signal."""

    READ_CHECKPOINTS = auto()
    """Read the job's checkpoints, and reply with `Checkpoints`."""
    READ_JOB = auto()
    """Read the job's state and result, and reply with `StoredJob`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Current state and data of the state machine for one job."""

    state: FollowState = FollowState.STREAMING
    max_pending: int
    """Maximum length of `pending`; at least the number of choices."""
    pending: tuple[Tokens, ...] = ()
    """Events that can't be appended to the transcript yet, in order of arrival."""
    prompt_tokens: int = 0
    usage: Usage | None = None
    """Token counts of the job. Always set in DONE; sometimes set in COMPLETING."""
    error: JobError | None = None
    """Reason why there is no complete answer. Set in FAILED and ABANDONED."""
    diverged_at: str | None = None
    """Choice and index of the event that contradicted the transcript. None if no event did."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of one transition of the state machine."""

    progress: Progress
    updates: tuple[Update, ...] = ()
    action: Action | None = None


def advance(progress: Progress, transcript: Transcript, signal: Signal) -> Outcome:
    """Apply one signal and return the outcome.

    Appends new tokens to `transcript`. In a final state, signals have no effect.
    """
    if progress.state in FINAL_STATES:
        return Outcome(progress)
    match signal:
        case Timer.SILENCE:
            return Outcome(progress, action=Action.READ_JOB)
        case Timer.REFILL:
            return Outcome(progress, action=Action.READ_CHECKPOINTS if progress.pending else None)
        case DeadlinePassed():
            error = _deadline_exceeded(signal.limit_ms)
            return Outcome(replace(progress, state=FollowState.ABANDONED, error=error))
        case StoredJob():
            return _on_stored_job(progress, transcript, signal)
        case Checkpoints():
            events = (*signal.events, *progress.pending)
            return _add_tokens(replace(progress, pending=()), transcript, events)
        case _:
            return _on_event(progress, transcript, signal)


def _on_event(progress: Progress, transcript: Transcript, event: Event) -> Outcome:
    # A job can be cancelled between two tries, so an End is handled even if its try is over.
    if transcript.is_void(event) and not isinstance(event, End):
        return Outcome(progress)
    match event:
        case Tokens():
            return _add_tokens(progress, transcript, (event,))
        case Admitted():
            return Outcome(replace(progress, prompt_tokens=event.prompt_tokens), (event,))
        case Retry():
            transcript.void(event)
            return Outcome(progress)
        case End(state=JobState.DONE):
            completing = replace(progress, state=FollowState.COMPLETING, usage=event.usage)
            return _settle(completing, transcript)
        case End():
            return Outcome(_failed(progress, event.state, event.error))


def _on_stored_job(progress: Progress, transcript: Transcript, stored: StoredJob) -> Outcome:
    if stored.state is None:
        return Outcome(replace(progress, state=FollowState.FAILED, error=JOB_LOST))
    result, events = stored.result, (*stored.checkpoints, *progress.pending)
    if stored.state is JobState.DONE and result:
        events = (*result_events(result),)
    outcome = _add_tokens(replace(progress, pending=()), transcript, events)
    if stored.state is JobState.DONE and result and result.usage:
        # The job's client may have missed when a worker admitted it.
        admitted = Admitted(job=result.job, try_=0, prompt_tokens=result.usage.prompt_tokens)
        outcome = replace(outcome, updates=(admitted, *outcome.updates))
    is_unfinished = stored.state in UNFINISHED
    if is_unfinished or outcome.progress.state in FINAL_STATES:
        return Outcome(outcome.progress, outcome.updates)
    return Outcome(_ended(outcome.progress, transcript, stored), outcome.updates)


def _ended(progress: Progress, transcript: Transcript, stored: StoredJob) -> Progress:
    """Return the final progress of an ended job, whose stored tokens are in the transcript."""
    if stored.state is JobState.DONE and stored.result:
        return _done(progress, transcript, stored.result.usage)
    if stored.state is JobState.DONE:
        return replace(progress, state=FollowState.FAILED, error=ANSWER_DELETED)
    assert stored.state is not None
    return _failed(progress, stored.state, stored.error)


def _add_tokens(progress: Progress, transcript: Transcript, events: Iterable[Tokens]) -> Outcome:
    """Append events to the transcript. Hold events that can't be appended yet."""
    updates: list[Update] = []
    for event in events:
        if not transcript.can_accept(event):
            progress = _hold(progress, event)
            continue
        try:
            delta = transcript.accept(event)
        except Diverged as diverged:
            progress = replace(
                progress,
                state=FollowState.ABANDONED,
                error=RESUME_DIVERGED,
                diverged_at=str(diverged),
            )
            return Outcome(progress, tuple(updates))
        updates += [delta] if delta else []
    outcome = _settle(progress, transcript)
    return Outcome(outcome.progress, tuple(updates), outcome.action)


def _settle(progress: Progress, transcript: Transcript) -> Outcome:
    """Update the state to match the pending events and the transcript."""
    if progress.state is not FollowState.COMPLETING:
        state = FollowState.GAP if progress.pending else FollowState.STREAMING
        return Outcome(progress if progress.state is state else replace(progress, state=state))
    if transcript.is_complete:
        return Outcome(_done(progress, transcript, progress.usage))
    # Redis stores the result together with the end of the job, so the result has every token.
    return Outcome(progress, action=Action.READ_JOB)


def _hold(progress: Progress, event: Tokens) -> Progress:
    """Add an event to `pending`. If `pending` is full, keep only the newest event of each choice.

    No token is lost, because the checkpoints will contain the tokens of the dropped events.
    """
    pending = (*progress.pending, event)
    if len(pending) > progress.max_pending:
        pending = tuple({held.choice: held for held in pending}.values())
    return replace(progress, pending=pending)


def _done(progress: Progress, transcript: Transcript, usage: Usage | None) -> Progress:
    counted = Usage(prompt_tokens=progress.prompt_tokens, completion_tokens=transcript.num_tokens)
    return replace(progress, state=FollowState.DONE, usage=usage or counted)


def _failed(progress: Progress, state: JobState, error: JobError | None) -> Progress:
    return replace(progress, state=FollowState.FAILED, error=error or _error_of_state(state))


def _deadline_exceeded(limit_ms: int | None) -> JobError:
    limit = "before its deadline" if limit_ms is None else f"within {limit_ms / 1000:g} s"
    return JobError(
        code=ErrorCode.DEADLINE_EXCEEDED,
        message=f"the request wasn't finished {limit}; ask for fewer tokens, or try again when the "
        "load is lower",
    )


def _error_of_state(state: JobState) -> JobError:
    codes = {
        JobState.CANCELLED: ErrorCode.CANCELLED,
        JobState.EXPIRED: ErrorCode.DEADLINE_EXCEEDED,
        JobState.DEAD: ErrorCode.POISON_JOB,
    }
    code = codes.get(state, ErrorCode.INTERNAL)
    return JobError(code=code, message=f"the job ended as {state}")
