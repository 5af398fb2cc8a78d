"""Front ends that follow jobs of other front ends, and clients that go away."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from queue_support import API, LIMITS, Actor, make_job, tokens

from shared.errors import RedisUnavailable
from shared.protocol.enqueue import EnqueueOptions
from shared.protocol.events import End, Event, Retry, Tokens
from shared.protocol.ids import ApiId
from shared.protocol.jobs import Job, JobState
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.durability import Replication
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

OTHER = ApiId("api-2")
THIRD = ApiId("api-3")
GRACE_MS = 10_000
Events = Callable[..., Awaitable[list[Event]]]


async def start_of(job: Job, worker: Actor) -> Any:
    (claimed,) = await worker.claim()
    assert claimed.job.id == job.id
    return claimed


async def test_an_attached_front_end_gets_the_later_events(
    queue: Queue, actor: Any, enqueue: Any, events: Events
) -> None:
    worker, job = await actor(), await enqueue()
    claimed = await start_of(job, worker)
    await queue.publish(worker.id, {API: [tokens(job, 0, [1])]})
    await queue.attach(job.id, OTHER)
    await queue.publish(worker.id, {API: [tokens(job, 1, [2])]})
    await worker.finish(claimed)
    first, second, end = await events(job)
    assert await events(job, OTHER) == [second, end]
    assert isinstance(first, Tokens)
    assert isinstance(end, End)


async def test_a_retry_and_the_end_by_a_script_reach_attached_front_ends(
    queue: Queue, actor: Any, enqueue: Any, events: Events
) -> None:
    worker, job = await actor(), await enqueue()
    await queue.attach(job.id, OTHER)
    await start_of(job, worker)
    await queue.release(worker.id, [job.id])
    await queue.cancel(job.id)
    assert [type(event) for event in await events(job, OTHER)] == [Retry, End]


async def test_each_event_is_forwarded_once_however_many_jobs_are_followed(
    queue: Queue, actor: Any, enqueue: Any, events: Events
) -> None:
    worker, jobs = await actor(), [await enqueue() for _ in range(3)]
    for job in jobs:
        await queue.attach(job.id, OTHER)
        await queue.attach(job.id, OTHER)
    await worker.claim()
    await queue.publish(worker.id, {API: [tokens(job, 0, [1]) for job in jobs]})
    assert [event.job for event in await events(None, OTHER)] == [job.id for job in jobs]


async def test_only_the_latest_eight_front_ends_are_kept(
    queue: Queue, enqueue: Any, redis: Redis, keys: Keys
) -> None:
    job = await enqueue()
    for number in range(12):
        await queue.attach(job.id, ApiId(f"other-{number}"))
    kept = (await redis.hget(keys.followers, job.id)).decode().split()
    assert kept == [f"other-{number}" for number in range(4, 12)]


async def test_attaching_to_an_ended_or_unknown_job_has_no_effect(
    queue: Queue, enqueue: Any, redis: Redis, keys: Keys
) -> None:
    job = await enqueue()
    await queue.cancel(job.id)
    await queue.attach(job.id, OTHER)
    await queue.attach(make_job().id, OTHER)
    assert await redis.exists(keys.followers) == 0


async def let_grace_pass(redis: Redis, keys: Keys, job: Job) -> None:
    await redis.zincrby(keys.abandoned, -GRACE_MS, job.id)


async def test_an_abandoned_job_is_cancelled_after_the_grace_period(
    queue: Queue, enqueue: Any, views: PoolViews, redis: Redis, keys: Keys
) -> None:
    job = await enqueue()
    await queue.abandon(job.id, API, grace_ms=GRACE_MS)
    await queue.reap()
    assert (await views.job(job.id)).state is JobState.QUEUED
    await let_grace_pass(redis, keys, job)
    await queue.reap()
    view = await views.job(job.id)
    assert view.state is JobState.CANCELLED
    assert view.error.message == "the client closed its connection"
    assert await redis.exists(keys.abandoned) == 0


async def test_the_worker_of_an_abandoned_job_is_asked_to_stop(
    queue: Queue, actor: Any, enqueue: Any, redis: Redis, keys: Keys
) -> None:
    worker, job = await actor(), await enqueue()
    await start_of(job, worker)
    await queue.abandon(job.id, API, grace_ms=GRACE_MS)
    await let_grace_pass(redis, keys, job)
    await queue.reap()
    standing = await queue.publish(worker.id, {API: [tokens(job, 0, [1])]})
    assert standing.cancelled == {job.id}


@pytest.mark.parametrize("returns_to", [API, OTHER])
async def test_a_client_that_comes_back_keeps_its_job(
    queue: Queue, enqueue: Any, redis: Redis, keys: Keys, returns_to: ApiId
) -> None:
    job = await enqueue()
    await queue.abandon(job.id, API, grace_ms=GRACE_MS)
    await queue.attach(job.id, returns_to)
    assert await redis.exists(keys.abandoned) == 0


async def test_a_job_lives_as_long_as_any_front_end_has_a_client_of_it(
    queue: Queue, enqueue: Any, views: PoolViews
) -> None:
    job = await enqueue()
    for api in (API, OTHER, THIRD):
        await queue.beat_api(api)
    await queue.attach(job.id, OTHER)
    await queue.attach(job.id, THIRD)
    for gone in (OTHER, API):
        await queue.abandon(job.id, gone, grace_ms=0)
        assert (await views.job(job.id)).state is JobState.QUEUED
    await queue.abandon(job.id, THIRD, grace_ms=0)
    assert (await views.job(job.id)).state is JobState.CANCELLED


async def test_a_job_that_keeps_running_is_never_abandoned(queue: Queue, views: PoolViews) -> None:
    job = make_job()
    await queue.enqueue(job, LIMITS, options=EnqueueOptions(keeps_running=True))
    await queue.abandon(job.id, API, grace_ms=0)
    assert (await views.job(job.id)).state is JobState.QUEUED


async def test_with_strict_durability_an_attachment_waits_for_its_copies(
    enqueue: Any, redis: Redis, keys: Keys
) -> None:
    class NoCopies:
        async def confirm(self, connection: Redis, replication: Replication) -> None:
            raise RedisUnavailable("scripted")

    job = await enqueue()
    strict = Queue(redis, keys, durability=NoCopies())  # type: ignore[arg-type]
    with pytest.raises(RedisUnavailable):
        await strict.attach(job.id, OTHER)
    await strict.attach(make_job().id, OTHER)  # nothing was written
