"""Builders for a job, its events and its result, and the state machine that follows them."""

from queue_support import make_job

from api.follow.follow_state import Action, Progress, Signal, advance
from api.follow.transcript import Delta, Transcript
from shared.errors import ErrorCode, JobError
from shared.protocol.events import Admitted, End, Retry, Tokens
from shared.protocol.ids import JobId
from shared.protocol.jobs import Endpoint, Job, JobState
from shared.protocol.results import Choice, FinishReason, Result, Usage

ID = JobId("j")
STOP = FinishReason.STOP
USAGE = Usage(prompt_tokens=3, completion_tokens=2)
ADMITTED = Admitted(job=ID, try_=1, prompt_tokens=3)
RETRY = Retry(job=ID, try_=1)


def followed_job(n: int = 1) -> Job:
    return make_job("m@1", n=n, id=ID, endpoint=Endpoint.CHAT, deadline_ms=20_000)


def tokens(
    index: int,
    ids: tuple[int, ...],
    text: str,
    finish: FinishReason | None = None,
    *,
    try_: int = 1,
    choice: int = 0,
) -> Tokens:
    return Tokens(job=ID, try_=try_, choice=choice, index=index, ids=ids, text=text, finish=finish)


def end(state: JobState = JobState.DONE, error: JobError | None = None, try_: int = 1) -> End:
    usage = USAGE if state is JobState.DONE else None
    return End(job=ID, try_=try_, state=state, usage=usage, error=error)


def done(text: str, *ids: int) -> Result:
    choices = (Choice(text=text, finish=STOP, ids=ids),)
    return Result(job=ID, state=JobState.DONE, choices=choices, usage=USAGE)


class Machine:
    """Follower's state machine that records the text and the actions of its signals."""

    def __init__(self, *signals: Signal, num_choices: int = 1, max_pending: int = 8) -> None:
        self.progress = Progress(max_pending=max_pending)
        self.transcript = Transcript(num_choices)
        self.text = ""
        self.actions: list[Action | None] = []
        for signal in signals:
            self.apply(signal)

    def apply(self, signal: Signal) -> None:
        outcome = advance(self.progress, self.transcript, signal)
        self.progress = outcome.progress
        self.text += "".join(u.text for u in outcome.updates if isinstance(u, Delta))
        self.actions.append(outcome.action)

    @property
    def error_code(self) -> ErrorCode | None:
        return self.progress.error.code if self.progress.error else None
