"""Enqueues dead and failed jobs again."""

import hashlib
import time
from dataclasses import replace

from shared.errors import DuplicateJob, ErrorCode, JobError, RegistryChanged, failed
from shared.protocol.adapters import fingerprint_of
from shared.protocol.enqueue import Enqueued, EnqueueOptions, QueueLimits
from shared.protocol.ids import ApiId, JobId
from shared.protocol.jobs import Endpoint, Job, JobState
from shared.store.adapters.registry import Registry
from shared.store.jobs.dead_letters import DeadLetters, Unanswered
from shared.store.jobs.queue import Queue
from shared.store.views.job_view import JobView

RETRYABLE = frozenset({JobState.DEAD, JobState.FAILED})
"""States of jobs that `DeadLetters.find` may return."""
MAX_REMAKES = 3
"""Number of times that a retried job is made again because the registry changed."""
NO_READER = ApiId("nobody")
"""Reply address of retried jobs. No front end reads it, because the client already has an error."""


async def enqueue_again(
    old: Unanswered,
    queue: Queue,
    registry: Registry,
    letters: DeadLetters,
    limits: QueueLimits,
    *,
    weight: float = 1.0,
    key_id: str = "",
    books_pool: str = "",
) -> Enqueued:
    """Enqueue a job again under a new id, with its model's current weights.

    The new job runs to its end without a client. Calls for the same job at the same time enqueue
    one job. `weight` is that of the job's tenant. `key_id` names the stored API key whose limits
    apply, if any. `books_pool` names the pool that has it and the ledger, if that is another one.

    Raises:
        JobFailed: the model is no longer served, or `Queue.enqueue` refuses the job.
        QueueFull: the queue is full. The job can still be retried.
        RateLimited: a limit of the API key is reached. The job can still be retried.
    """
    options = EnqueueOptions(
        keeps_running=True, weight=weight, key_id=key_id, books_pool=books_pool
    )
    enqueued = await _enqueue_renewed(old, queue, registry, limits, options)
    await letters.discard(old.job.id)
    return enqueued


async def _enqueue_renewed(
    old: Unanswered,
    queue: Queue,
    registry: Registry,
    limits: QueueLimits,
    options: EnqueueOptions,
    *,
    num_remakes: int = MAX_REMAKES,
) -> Enqueued:
    """Enqueue the job's copy. If the registry changes meanwhile, make another copy."""
    new, revision = await _renewed(old.job, registry)
    try:
        return await queue.enqueue(
            *(new, limits),
            options=options,
            is_suspect=old.is_dead,
            # The last copy is enqueued anyway, since its version was current a moment ago.
            registry_revision=revision if num_remakes else "",
        )
    except DuplicateJob:
        return Enqueued(new.id, 0, is_new=False)
    except RegistryChanged:
        return await _enqueue_renewed(
            *(old, queue, registry, limits, options), num_remakes=num_remakes - 1
        )


async def _renewed(job: Job, registry: Registry) -> tuple[Job, str]:
    """Return a copy of the job for its model as it is now, and the revision of the registry.

    The copy has the current time. Its id follows from the old one, so that a repeated call makes
    the same job.

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
    """Return the error for the retry of a job that `DeadLetters.find` doesn't return."""
    reason = "only dead and failed jobs can be retried"
    if view.state in RETRYABLE:
        reason = "it was retried before, would fail again, or its request is too large to keep"
    message = f"job {job_id} is {view.state.value}: {reason}"
    return JobError(code=ErrorCode.JOB_CONFLICT, message=message)
