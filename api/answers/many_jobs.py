"""Cancels and retries many jobs in one request."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from api.answers.parts import Intake
from shared.errors import JobFailed, QueueFull, RateLimited
from shared.protocol.access.rights import Access
from shared.protocol.enqueue import EnqueueOptions
from shared.protocol.ids import JobId
from shared.protocol.job_filter import JobFilter
from shared.protocol.jobs import UNFINISHED, JobState
from shared.store.jobs.dead_letters import DeadLetters
from shared.store.jobs.queue import Queue
from shared.store.jobs.retried_jobs import RETRYABLE, enqueue_again
from shared.store.views.job_lists import JobLists

MAX_JOBS = 10_000
"""Maximum number of jobs that one request cancels or retries."""
AT_ONCE = 16
"""Number of jobs that one request handles at the same time."""
NOT_KEPT = (
    "it was retried before, its error came from the request, or its request is no longer kept"
)


@dataclass(frozen=True, slots=True)
class Acted:
    """Outcome of an action for one job."""

    id: JobId
    new_id: JobId | None = None
    error: str | None = None
    """Why the job was left as it is. None if it was cancelled or retried, and in a dry run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Outcome of an action on many jobs."""

    jobs: Sequence[Acted]
    """Jobs that were tried, in the order of their acceptance."""
    num_matched: int
    has_more: bool
    reason: str | None = None
    """Why the action ended early; None if it didn't."""


Act = Callable[[JobId], Awaitable[Acted]]


async def cancel_many(
    lists: JobLists, queue: Queue, wanted: JobFilter, *, dry_run: bool
) -> Outcome:
    """Cancel the unfinished jobs that match.

    Raises:
        RedisUnavailable: Redis can't be reached. Perhaps some of the jobs were cancelled.
    """

    async def cancel(job_id: JobId) -> Acted:
        state = await queue.cancel(job_id)
        is_ended = state not in (JobState.RUNNING, JobState.CANCELLED)
        return Acted(job_id, error="it had ended before" if is_ended else None)

    if wanted.states is None:
        wanted = replace(wanted, states=frozenset(UNFINISHED))
    ids, has_more = await lists.unfinished(wanted, most=MAX_JOBS)
    return await _act(ids, cancel, has_more=has_more, dry_run=dry_run)


async def retry_many(
    lists: JobLists,
    letters: DeadLetters,
    intake: Intake,
    access: Access,
    wanted: JobFilter,
    *,
    dry_run: bool,
) -> Outcome:
    """Enqueue again those dead and failed jobs that match, each at most once.

    The new jobs belong to the tenants of the old ones. New jobs of the caller's own tenant are
    charged to the caller's API key.

    Raises:
        QueueFull: the queue is full, and no job was enqueued.
        RateLimited: a limit of the API key is reached, and no job was enqueued.
        RedisUnavailable: Redis can't be reached. Perhaps some of the jobs were enqueued.
    """

    async def retry(job_id: JobId) -> Acted:
        old = await letters.find(job_id)
        if old is None:
            return Acted(job_id, error=NOT_KEPT)
        options = retry_options(intake, access, old.job.tenant)
        async with intake.turns.turn(access.tenant):
            try:
                enqueued = await enqueue_again(
                    old, intake.queue, intake.registry, intake.limits, options
                )
            except JobFailed as failed:
                return Acted(job_id, error=failed.error.message)
        if not enqueued.is_new:
            return Acted(job_id, error=NOT_KEPT)
        return Acted(job_id, new_id=enqueued.id)

    states = RETRYABLE if wanted.states is None else wanted.states & RETRYABLE
    ids, has_more = await lists.unanswered(replace(wanted, states=states), most=MAX_JOBS)
    return await _act(ids, retry, has_more=has_more, dry_run=dry_run)


def retry_options(intake: Intake, access: Access, tenant: str) -> EnqueueOptions:
    """Return the options with which a client retries a job of `tenant`.

    The client's API key is charged only for jobs of its own tenant.
    """
    options = EnqueueOptions(weight=intake.settings.weight_of(tenant))
    if tenant != access.tenant:
        return options
    return replace(options, key_id=access.key_id, books_pool=access.books_pool)


async def _act(ids: Sequence[JobId], act: Act, *, has_more: bool, dry_run: bool) -> Outcome:
    """Act on the jobs in order. A limit of the queue ends the action early."""
    if dry_run:
        return Outcome(jobs=[Acted(each) for each in ids], num_matched=len(ids), has_more=has_more)
    acted: list[Acted] = []
    for first in range(0, len(ids), AT_ONCE):
        calls = (act(job_id) for job_id in ids[first : first + AT_ONCE])
        results = await asyncio.gather(*calls, return_exceptions=True)
        acted += [each for each in results if isinstance(each, Acted)]
        for error in (each for each in results if isinstance(each, BaseException)):
            if isinstance(error, QueueFull | RateLimited) and any(not a.error for a in acted):
                return Outcome(
                    jobs=acted, num_matched=len(ids), has_more=has_more, reason=str(error)
                )
            raise error
    return Outcome(jobs=acted, num_matched=len(ids), has_more=has_more)
