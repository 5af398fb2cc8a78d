"""Builders for a job, its events and its result, as the front end follows them."""

from shared.errors import JobError
from shared.protocol.events import Admitted, End, Retry, Tokens
from shared.protocol.ids import AdapterVersion, ApiId, JobId
from shared.protocol.jobs import Endpoint, Job, JobState, SamplingParams
from shared.protocol.results import Choice, FinishReason, Result, Usage

ID = JobId("j")
STOP = FinishReason.STOP
USAGE = Usage(prompt_tokens=3, completion_tokens=2)
ADMITTED = Admitted(job=ID, try_=1, prompt_tokens=3)
RETRY = Retry(job=ID, try_=1)


def followed_job(n: int = 1, deadline_ms: int = 20_000) -> Job:
    return Job(
        id=ID,
        endpoint=Endpoint.CHAT,
        model="m",
        version=AdapterVersion("m@1"),
        sampling=SamplingParams(seed=1, n=n),
        created_s=0,
        deadline_ms=deadline_ms,
        cost=1,
        reply_to=ApiId("api"),
    )


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
    """Return the result of a job with one choice."""
    choices = (Choice(text=text, finish=STOP, ids=ids),)
    return Result(job=ID, state=JobState.DONE, choices=choices, usage=USAGE)
