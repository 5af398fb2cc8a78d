"""Spans of the jobs of one worker, as a collector receives them."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from otlp_collector import Collector, Received, collecting
from queue_support import make_job
from running_jobs import add_job, claim, make_choice, output

from shared.errors import ErrorCode, JobError
from shared.protocol.jobs import JobState
from shared.protocol.results import FinishReason
from shared.tracing.tracer import Tracer
from worker.jobs.running import RunningJob
from worker.jobs.traced_jobs import TracedJobs
from worker.lease import Lease

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ERROR_STATUS = 2


class Traced:
    """Traced jobs whose spans go to a collector."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._tracer = Tracer(collector.url, service="lorikeet-worker", pool="main")
        self.jobs = TracedJobs(self._tracer, Lease(lease_ms=6000))

    def add(self, **fields: object) -> RunningJob:
        """Add a claimed job that belongs to a trace."""
        job = RunningJob(claim(make_job(traceparent=TRACEPARENT), **fields))
        self.jobs.add(job)
        return job

    def spans(self) -> dict[str, Received]:
        """Export all spans that have ended, and return them by name."""
        self._tracer.close()
        return {span.name: span for span in self._collector.spans}


@pytest.fixture
def traced() -> Iterator[Traced]:
    with collecting() as collector:
        yield Traced(collector)


def test_the_queue_ends_with_the_claim_and_the_first_output_is_an_event_if_it_is_a_token(
    traced: Traced,
) -> None:
    traced.jobs.finish(add_job(traced.jobs))  # it has no trace, and so no spans
    job = traced.add(left_ms=58_000, try_=2, waited_ms=1500)
    choice = make_choice(job_id=job.id)
    traced.jobs.add_choices(job, [choice])
    for token in "ab":
        assert traced.jobs.find(choice.request_id) == (job, choice)
        choice.accept(output(choice, token, FinishReason.LENGTH if token == "b" else None))
    job.conclude(JobState.DONE)
    traced.jobs.finish(job)
    spans = traced.spans()
    assert len(traced._collector.spans) == 3
    queue, compute = spans["queue"], spans["compute"]
    assert queue.end_ns - queue.start_ns == 1_500_000_000
    assert queue.attributes["lorikeet.try"] == 2
    assert 2 <= compute.events["first_token"]["lorikeet.seconds_since_enqueue"] < 10
    assert compute.attributes["gen_ai.usage.output_tokens"] == 2
    assert compute.attributes["lorikeet.state"] == "done"


def test_jobs_that_leave_this_worker_end_their_spans(traced: Traced) -> None:
    released, fenced, dropped = traced.add(), traced.add(), traced.add()
    traced.jobs.remove(released)
    traced.jobs.finish(fenced)
    traced.jobs.clear()
    traced.jobs.remove(dropped)
    traced.spans()
    spans = {s.attributes["lorikeet.job.id"]: s for s in traced._collector.named("admit")}
    states = [spans[job.id].attributes["lorikeet.state"] for job in (released, fenced, dropped)]
    assert states == ["released", "lost", "lost"]


@pytest.mark.slow
def test_a_worker_without_a_collector_does_not_import_the_sdk() -> None:
    code = (
        "import sys, worker.process, worker.assembly, api.server; "
        "sys.exit('opentelemetry.sdk' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_job_that_fails_ends_its_admission_or_has_no_first_token(traced: Traced) -> None:
    rejected = traced.add()
    long = JobError(code=ErrorCode.CONTEXT_LENGTH_EXCEEDED, message="long")
    rejected.conclude(JobState.FAILED, long)
    traced.jobs.finish(rejected)
    failed = traced.add()
    choice = make_choice(job_id=failed.id)
    traced.jobs.add_choices(failed, [choice])
    assert traced.jobs.find(choice.request_id)
    failed.conclude(JobState.FAILED, JobError(code=ErrorCode.INTERNAL, message="a secret"))
    traced.jobs.finish(failed)
    compute = traced.spans()["compute"]
    assert compute.events == {}
    assert compute.attributes["error.type"] == "internal_error"
    assert compute.status == ERROR_STATUS
    admit, _ = traced._collector.named("admit")
    assert len(traced._collector.spans) == 5, "a job that was rejected isn't computed"
    assert admit.attributes["lorikeet.state"] == "failed"
    assert admit.attributes["error.type"] == "context_length_exceeded"
    assert admit.status != ERROR_STATUS
