"""Ended jobs: how long and how many are kept, and how they are erased."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from queue_support import API, LIMITS, Actor, make_job, tokens

from ops.local.embedded_redis import EmbeddedRedis
from shared.errors import ErrorCode
from shared.protocol.ids import JobId
from shared.protocol.jobs import JobState
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

SECRET = "a secret prompt"


async def ended_job(queue: Queue, worker: Actor, limits: Any = LIMITS, **fields: Any) -> JobId:
    job = make_job(**fields)
    await queue.enqueue(job, limits)
    (claimed,) = await worker.claim()
    await worker.finish(claimed)
    return job.id


async def all_text(redis: Redis, keys: Keys) -> str:
    """Return the content of all keys of the pool."""
    read = {b"hash": redis.hgetall, b"string": redis.get, b"stream": redis.xrange}
    found = []
    async for key in redis.scan_iter(match=f"{keys.prefix}*", count=1000):
        kind = await redis.type(key)
        if kind in read:
            found.append(str(await read[kind](key)))
    return "".join(found)


async def kept_bytes(redis: Redis, keys: Keys) -> int:
    return int(await redis.hget(keys.counters, "kept") or 0)


async def test_erasing_an_ended_job_leaves_nothing_of_it(
    queue: Queue, actor: Any, redis: Redis, keys: Keys
) -> None:
    worker: Actor = await actor()
    job = make_job(prompts=(SECRET,))
    await queue.enqueue(job, LIMITS)
    (claimed,) = await worker.claim()
    await worker.fail(claimed, ErrorCode.INTERNAL)  # its request is kept for a retry
    assert SECRET in await all_text(redis, keys)
    assert await queue.erase(job.id) is JobState.FAILED
    assert await queue.erase(job.id) is None
    text = await all_text(redis, keys)
    assert SECRET not in text
    assert await redis.exists(keys.job(job.id), keys.result(job.id), keys.ended) == 0
    assert await redis.exists(keys.jobs("default")) == 0
    assert await kept_bytes(redis, keys) == 0


async def test_publications_are_kept_only_while_their_worker_has_jobs(
    queue: Queue, actor: Any, enqueue: Any, redis: Redis, keys: Keys
) -> None:
    worker: Actor = await actor()
    for _ in range(2):
        await enqueue()
    first, second = await worker.claim()
    await queue.publish(worker.id, {API: [tokens(first.job, 0, [1], SECRET)]})
    await worker.finish(first)
    assert await redis.exists(keys.sent(worker.id))
    await worker.finish(second)
    assert not await redis.exists(keys.sent(worker.id))


async def test_expired_jobs_leave_the_indexes(
    queue: Queue, actor: Any, redis: Redis, keys: Keys
) -> None:
    worker: Actor = await actor()
    gone = await ended_job(queue, worker, replace(LIMITS, retain_ms=1))
    kept = await ended_job(queue, worker)
    while await redis.exists(keys.job(gone)):
        pass
    assert await queue.retain() == (1, 0)
    assert await redis.zrange(keys.jobs("default"), 0, -1) == [kept.encode()]
    (member,) = await redis.zrange(keys.ended, 0, -1)
    assert member.decode().split() == [kept, str(await kept_bytes(redis, keys)), "default"]


async def test_a_tenant_that_keeps_much_loses_its_own_answers_first(
    queue: Queue, actor: Any, redis: Redis, keys: Keys, views: PoolViews
) -> None:
    worker: Actor = await actor()
    soon = replace(LIMITS, retain_ms=LIMITS.retain_ms // 2)
    quiet = [await ended_job(queue, worker, soon, tenant="quiet") for _ in range(2)]
    large = [await ended_job(queue, worker, tenant="large") for _ in range(6)]
    size = await kept_bytes(redis, keys) // 8
    limits = replace(LIMITS, retain_bytes=4 * size + size // 2)
    large.append(await ended_job(queue, worker, limits, tenant="large"))
    await queue.retain()
    assert [await views.job(job) is not None for job in quiet] == [True, True]
    assert [await views.job(job) is not None for job in large] == [False] * 5 + [True] * 2
    kept = await redis.zrange(keys.kept, 0, -1, withscores=True)
    assert sum(num_bytes for _, num_bytes in kept) == await kept_bytes(redis, keys)
    for job in (*quiet, *large):
        await queue.erase(job)
    assert not await redis.exists(keys.kept)


@pytest.mark.parametrize("prompt", ["hi", "x" * 30_000])
async def test_kept_bytes_are_about_the_memory_of_the_ended_jobs(
    own_server: EmbeddedRedis, open_client: Callable[[str], Redis], keys: Keys, prompt: str
) -> None:
    redis = open_client(own_server.url)
    queue = Queue(redis, keys)
    worker = await Actor(queue, redis, keys, "w1", ["a@1"]).register()

    async def end_jobs(number: int) -> None:
        for _ in range(number):
            await queue.enqueue(make_job(prompts=(prompt,)), LIMITS)
            (claimed,) = await worker.claim()
            await worker.fail(claimed, ErrorCode.INTERNAL)  # its request is kept
            await redis.delete(keys.replies(API))

    await end_jobs(50)
    used, kept = (await redis.info("memory"))["used_memory"], await kept_bytes(redis, keys)
    await end_jobs(300)
    grown = (await redis.info("memory"))["used_memory"] - used
    assert await kept_bytes(redis, keys) - kept == pytest.approx(grown, rel=0.25)


async def test_the_published_text_of_a_cancelled_job_counts(
    queue: Queue, enqueue: Any, actor: Any, redis: Redis, keys: Keys
) -> None:
    worker: Actor = await actor()
    job = await enqueue()
    (claimed,) = await worker.claim()
    piece = tokens(job, 0, [1], "x" * 50_000)
    await queue.publish(worker.id, {API: [piece]}, [piece])
    await worker.finish(claimed, JobState.CANCELLED)
    assert await kept_bytes(redis, keys) > 50_000


@pytest.mark.parametrize(("max_memory", "num_deleted"), [(0, 0), (10**9, 0), (1, 3)])
async def test_kept_jobs_use_at_most_half_of_redis_memory(
    queue: Queue, actor: Any, redis: Redis, keys: Keys, max_memory: int, num_deleted: int
) -> None:
    worker: Actor = await actor()
    for _ in range(5):
        await ended_job(queue, worker)
    half = await kept_bytes(redis, keys) // 2
    limit = max_memory if max_memory != 1 else 2 * half
    await redis.hset(keys.counters, "max_memory", limit)  # type: ignore[misc]
    assert await queue.retain() == (0, num_deleted)
    if num_deleted:
        assert await kept_bytes(redis, keys) <= half


async def test_a_sweep_applies_the_limits(
    queue: Queue, actor: Any, redis: Redis, keys: Keys
) -> None:
    worker: Actor = await actor()
    await ended_job(queue, worker, replace(LIMITS, retain_bytes=1))
    await queue.reap()
    assert await kept_bytes(redis, keys) == 0
