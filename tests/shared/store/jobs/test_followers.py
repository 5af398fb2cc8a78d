"""Front ends that follow jobs of other front ends, and clients that go away."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from queue_support import API, make_job, tokens

from shared.errors import RedisUnavailable
from shared.protocol.events import Event
from shared.protocol.ids import ApiId
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.redis.replica_count import Replication

OTHER = ApiId("api-2")
THIRD = ApiId("api-3")
GRACE_MS = 10_000
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
