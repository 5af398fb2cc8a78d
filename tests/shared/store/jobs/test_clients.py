"""Front ends that follow jobs of other front ends, and front ends and clients that go away."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from queue_support import API, Actor, make_job, tokens

from shared.errors import RedisUnavailable
from shared.protocol.events import Event
from shared.protocol.ids import ApiId
from shared.protocol.jobs import Job
from shared.store.jobs.queue import Queue
from shared.store.jobs.sweep import RETURN_MS
from shared.store.redis.connection import Redis
from shared.store.redis.durability import Replication
from shared.store.redis.keys import Keys

OTHER = ApiId("api-2")
THIRD = ApiId("api-3")
Events = Callable[..., Awaitable[list[Event]]]


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


API_DEAD_MS = 60_000
DAY_MS = 86_400_000


class FrontEnds:
    """The front ends of a pool, which report that they live or fall silent."""

    def __init__(self, queue: Queue, redis: Redis, keys: Keys) -> None:
        self.queue, self.redis, self.keys = queue, redis, keys

    async def beat(self, *apis: ApiId) -> list[bool]:
        return [await self.queue.beat_api(api) for api in apis]

    async def let_pass(self, api: ApiId, ms: int = API_DEAD_MS) -> None:
        await self.redis.zincrby(self.keys.apis, -ms, api)

    async def left_ms(self, job: Job) -> float | None:
        """Return the time until the job is cancelled, or None if it isn't abandoned."""
        at = await self.redis.zscore(self.keys.abandoned, job.id)
        seconds, _ = await self.redis.time()
        return None if at is None else at - seconds * 1000


@pytest.fixture
async def front_ends(queue: Queue, redis: Redis, keys: Keys) -> FrontEnds:
    front_ends = FrontEnds(queue, redis, keys)
    await front_ends.beat(API, OTHER, THIRD)
    return front_ends


async def run(queue: Queue, worker: Actor, job: Job) -> None:
    await worker.claim()
    await queue.publish(worker.id, {job.reply_to: [tokens(job, 0, [1])]})


@pytest.mark.parametrize("silent_ms", [0, API_DEAD_MS // 2])
async def test_a_front_end_that_is_silent_for_seconds_is_still_connected(
    queue: Queue, actor: Any, enqueue: Any, front_ends: FrontEnds, silent_ms: int
) -> None:
    worker, job = await actor(), await enqueue()
    await run(queue, worker, job)
    await front_ends.let_pass(API, silent_ms)
    await queue.attach(job.id, OTHER)
    await queue.abandon(job.id, OTHER, grace_ms=0)
    await queue.reap()
    assert await front_ends.left_ms(job) is None
    assert not (await queue.publish(worker.id, {})).cancelled


async def test_a_running_job_of_a_dead_front_end_is_abandoned_with_time_to_come_back(
    queue: Queue, actor: Any, enqueue: Any, redis: Redis, keys: Keys, front_ends: FrontEnds
) -> None:
    worker, job = await actor(), await enqueue()
    await run(queue, worker, job)
    await front_ends.let_pass(API)
    await queue.reap()
    left_ms = await front_ends.left_ms(job)
    assert left_ms is not None
    assert left_ms > RETURN_MS - 5000
    await redis.zincrby(keys.abandoned, -RETURN_MS / 2, job.id)
    await queue.reap()  # a later sweep doesn't prolong the time
    assert (await front_ends.left_ms(job) or RETURN_MS) < 0.6 * RETURN_MS
    await redis.zincrby(keys.abandoned, -RETURN_MS, job.id)
    await queue.reap()
    assert (await queue.publish(worker.id, {})).cancelled == {job.id}
    await queue.reap()
    assert await front_ends.left_ms(job) is None


async def test_a_dead_front_end_is_forgotten_after_a_day(
    redis: Redis, keys: Keys, front_ends: FrontEnds
) -> None:
    await front_ends.let_pass(THIRD, DAY_MS - API_DEAD_MS)
    await front_ends.let_pass(OTHER, DAY_MS)
    await front_ends.beat(API)
    assert await redis.zrange(keys.apis, 0, -1) == [THIRD.encode(), API.encode()]
