"""Running jobs that record spans of their work. Used only if tracing is on."""

import time
from dataclasses import dataclass

from shared.protocol.ids import WorkerId
from shared.protocol.jobs import ClaimedJob
from shared.tracing.tracer import Attributes, Span, Tracer
from worker.engine.request import RequestId
from worker.jobs.running import RunningJob, RunningJobs
from worker.jobs.running_choice import RunningChoice
from worker.lease import Lease

RELEASED = "released"
"""`lorikeet.state` of a try that this worker returned to the queue."""
LOST = "lost"
"""`lorikeet.state` of a try whose job now belongs to another claim, or to no worker."""
NS_PER_MS = 1_000_000


@dataclass(slots=True)
class _Try:
    """Record of a job that this worker has claimed. Times are Unix times."""

    traceparent: str
    about: Attributes
    enqueued_ns: int
    span: Span
    """Current span of the job: `admit` or `compute`."""
    first_output_ns: int = 0
    """Time of the engine's first output for the job; 0 if there is none."""


class TracedJobs(RunningJobs):
    """Running jobs that record three spans for each try of a job that has a trace.

    The span `queue` covers the time in the queue before the claim. `admit` covers tokenizing and
    loading the adapter, until the engine has the job. `compute` covers the rest of the try. Each
    span is a child of the HTTP request's span. A try has no span of its own, because a killed
    worker would not export it, and its child spans would then have no parent.
    """

    def __init__(self, tracer: Tracer, lease: Lease) -> None:
        """Create an empty collection. Each span names the worker by the id in `lease`."""
        super().__init__()
        self._tracer = tracer
        self._lease = lease
        self._tries: dict[RunningJob, _Try] = {}

    def add(self, job: RunningJob) -> None:
        """Add a claimed job. Its time in the queue has ended, and its admission begins."""
        super().add(job)
        claimed, traceparent = job.claimed, job.job.traceparent
        if traceparent is None:
            return
        about, now_ns = _about(claimed, self._lease.wid), time.time_ns()
        queued_ns = now_ns - claimed.waited_ms * NS_PER_MS
        self._tracer.consume("queue", traceparent, about, start_ns=queued_ns).end(at_ns=now_ns)
        self._tries[job] = _Try(
            traceparent,
            about,
            enqueued_ns=now_ns - (job.job.deadline_ms - claimed.left_ms) * NS_PER_MS,
            span=self._tracer.consume("admit", traceparent, about, start_ns=now_ns),
        )

    def add_choices(self, job: RunningJob, choices: list[RunningChoice]) -> None:
        """Set the choices of a job. Its admission has ended, and the engine begins to compute."""
        super().add_choices(job, choices)
        if recorded := self._tries.get(job):
            recorded.span.end()
            recorded.span = self._tracer.consume("compute", recorded.traceparent, recorded.about)

    def find(self, request_id: RequestId) -> tuple[RunningJob, RunningChoice] | None:
        """Return a request's job and choice. The first call for a job sets `first_output_ns`."""
        found = super().find(request_id)
        if found and (recorded := self._tries.get(found[0])) and not recorded.first_output_ns:
            recorded.first_output_ns = time.time_ns()
        return found

    def remove(self, job: RunningJob) -> None:
        """Remove a job. Its current span ends."""
        super().remove(job)
        self._end(job, unless_ended=RELEASED)

    def finish(self, job: RunningJob) -> None:
        """Remove a job that has left the engine. Its current span ends."""
        self._end(job, unless_ended=LOST)
        super().finish(job)

    def clear(self) -> None:
        """Remove all jobs, because they no longer belong to this worker. Their spans end."""
        for job in self:
            self._end(job, unless_ended=LOST)
        super().clear()

    def _end(self, job: RunningJob, *, unless_ended: str) -> None:
        """End the current span of a job. If the job hasn't ended, `unless_ended` is the state."""
        if (recorded := self._tries.pop(job, None)) is None:
            return
        span, end = recorded.span, job.end
        if any(choice.ids for choice in job.choices) and recorded.first_output_ns:
            seconds = (recorded.first_output_ns - recorded.enqueued_ns) / 1e9
            about = {"lorikeet.seconds_since_enqueue": round(seconds, 6)}
            span.event("first_token", about, at_ns=recorded.first_output_ns)
        usage = end.usage if end else None
        span.set(
            {
                "lorikeet.state": end.state.value if end else unless_ended,
                "gen_ai.usage.input_tokens": usage.prompt_tokens if usage else None,
                "gen_ai.usage.output_tokens": usage.completion_tokens if usage else None,
                "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens if usage else None,
            }
        )
        if end and end.error:
            span.fail(end.error.code)
        span.end()


def _about(claimed: ClaimedJob, wid: WorkerId) -> Attributes:
    job = claimed.job
    return {
        "gen_ai.request.model": job.model,
        "lorikeet.job.id": job.id,
        "lorikeet.tenant": job.tenant,
        "lorikeet.adapter.version": job.version,
        "lorikeet.try": claimed.try_,
        "lorikeet.worker.id": wid,
    }
