"""Retries: enqueues dead and failed jobs again."""

import hashlib
import time
from dataclasses import replace

from shared.errors import DuplicateJob, ErrorCode, JobError, RegistryChanged, failed
from shared.protocol.adapters import fingerprint_of
from shared.protocol.enqueue import Enqueued, EnqueueOptions, QueueLimits
from shared.protocol.ids import ApiId, JobId
from shared.protocol.jobs import Endpoint, Job, JobState
from shared.store.adapters.registry import Registry
from shared.store.jobs.dead_letters import Unanswered
from shared.store.jobs.queue import Queue
from shared.store.views.job_view import JobView

RETRYABLE = frozenset({JobState.DEAD, JobState.FAILED})
"""States of jobs that `DeadLetters.find` may return."""
MAX_REMAKES = 3
"""Maximum number of times that a retried job is copied again because the registry changed."""
NO_READER = ApiId("nobody")
"""Reply address of retried jobs. It belongs to no front end, since the clients no longer wait."""


async def enqueue_again(
    old: Unanswered,
    queue: Queue,
    registry: Registry,
    limits: QueueLimits,
    options: EnqueueOptions = EnqueueOptions(),  # noqa: B008  # immutable
) -> Enqueued:
    """Enqueue a job again under a new id, with its model's current weights.

    `options` apply to the new job, except that it always runs to its end without a client. The
    stored request of the old job is deleted in the same step. Therefore all calls for one job
    together enqueue only one job, even if some of them fail or lose their replies.

    Raises:
        JobFailed: the model is no longer served, or `Queue.enqueue` refuses the job.
        QueueFull: the queue is full. The job can still be retried.
        RateLimited: a limit of the API key is reached. The job can still be retried.
    """
    options = replace(options, keeps_running=True, retry_of=old.job.id, letter=old.letter)
    # If the registry changes meanwhile, another copy is made.
    for num_left in range(MAX_REMAKES, -1, -1):
        new, revision = await _copied(old.job, registry)
        # The last copy is enqueued anyway, since its version was current a moment ago.
        needed = revision if num_left else ""
        try:
            return await queue.enqueue(
                new, limits, options=options, is_suspect=old.is_dead, registry_revision=needed
            )
        except DuplicateJob:
            return Enqueued(new.id, 0, is_new=False)
        except RegistryChanged:
            continue
    raise AssertionError("the last copy doesn't depend on the registry")


async def _copied(job: Job, registry: Registry) -> tuple[Job, str]:
    """Return a pair: a copy of the job, and the revision of the registry.

    The copy uses the current version of the job's model, and is created at the current time. The
    copy's id is derived from the job's id, so that repeated calls return copies with the same id.

    Raises:
        JobFailed: the model is no longer served.
    """
    found = await registry.find(job.model)
    if found.base is None or found.version is None:
        message = f"model {job.model!r} is no longer served; load it before the retry"
        raise failed(ErrorCode.MODEL_NOT_FOUND, message)
    new = replace(
        job,
        id=JobId(hashlib.sha256(f"retry {job.id}".encode()).hexdigest()[:32]),
        version=found.version,
        fingerprint=fingerprint_of(found.base, found.version),
        reasoning=found.reasoning if job.endpoint is Endpoint.CHAT else None,
        created_s=int(time.time()),
        reply_to=NO_READER,
        traceparent=None,  # the request's trace has ended
    )
    return new, found.revision


def not_retryable(job_id: str, view: JobView) -> JobError:
    """Return the error for a job that can't be retried.

    These are the jobs that `DeadLetters.find` doesn't return.
    """
    reason = "only dead and failed jobs can be retried"
    if view.state in RETRYABLE:
        reason = "it was retried before, would fail again, or its request is too large to keep"
    message = f"job {job_id} is {view.state.value}: {reason}"
    return JobError(code=ErrorCode.JOB_CONFLICT, message=message)
