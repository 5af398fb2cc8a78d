"""Limits of waiting requests in bytes, and of the requests that are kept after their end."""

from dataclasses import replace

import pytest
from queue_support import LIMITS, Actor, make_job

from ops.local.embedded_redis import EmbeddedRedis
from shared.errors import QueueFull
from shared.protocol.enqueue import QueueLimits
from shared.protocol.jobs import Job, JobState
from shared.store.jobs.dead_letters import DeadLetters
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

BODY = 100_000
TIGHT = replace(LIMITS, max_bytes=5 * BODY, max_bytes_tenant=3 * BODY)


def large_job(tenant: str, **changes: object) -> Job:
    return make_job(tenant=tenant, prompts=("x" * (BODY - 2000),), **changes)


async def fill(queue: Queue, tenant: str, limits: QueueLimits = TIGHT) -> tuple[list[Job], str]:
    """Enqueue until the queue is full; return the jobs and the limit that was reached."""
    jobs: list[Job] = []
    while True:
        job = large_job(tenant)
        try:
            await queue.enqueue(job, limits)
        except QueueFull as full:
            return jobs, full.limit
        jobs.append(job)


async def test_a_tenant_and_the_pool_have_a_limit_in_bytes(queue: Queue) -> None:
    red, which = await fill(queue, "red")
    assert (len(red), which) == (3, "bytes of the tenant")
    blue, which = await fill(queue, "blue")
    assert (len(blue), which) == (2, "bytes of the pool")


async def test_a_tenant_may_have_one_request_of_any_size(queue: Queue) -> None:
    await queue.enqueue(large_job("red"), replace(TIGHT, max_bytes_tenant=1))
    with pytest.raises(QueueFull, match="tenant"):
        await queue.enqueue(make_job(tenant="red"), replace(TIGHT, max_bytes_tenant=1))


async def test_one_tenant_cannot_fill_redis_for_the_others(
    own_server: EmbeddedRedis, open_client, keys: Keys
) -> None:
    redis = open_client(own_server.url)
    queue = Queue(redis, keys)
    await redis.config_set("maxmemory", 64_000_000)
    body = 3_900_000
    for _ in range(4):
        await queue.enqueue(make_job(tenant="red", prompts=("x" * body,)), LIMITS)
    with pytest.raises(QueueFull, match="bytes of the tenant"):
        await queue.enqueue(make_job(tenant="red", prompts=("x" * body,)), LIMITS)
    assert await queue.enqueue(make_job(tenant="blue"), LIMITS)


async def dies_alone(worker: Actor, job: Job) -> None:
    for _ in range(3):
        assert await worker.claim_ids() == [job.id]
        await worker.die()
        await worker.register()


@pytest.mark.parametrize("is_large", [False, True])
async def test_a_dead_letter_keeps_a_small_body_only(
    actor, queue: Queue, views: PoolViews, redis: Redis, keys: Keys, is_large: bool
) -> None:
    worker = await actor()
    job = large_job("red") if is_large else make_job(tenant="red")
    await queue.enqueue(job, LIMITS)
    await dies_alone(worker, job)
    assert (await views.job(job.id)).state == JobState.DEAD
    letters = DeadLetters(redis, keys)
    (letter,) = await letters.dead(10)
    assert letter.id == job.id
    found = await letters.find(job.id)
    assert (found is None) == is_large
    assert await redis.memory_usage(keys.dead) < 5000
