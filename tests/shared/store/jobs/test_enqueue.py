import asyncio
import itertools
from dataclasses import replace

import pytest
from queue_support import LIMITS, make_job

from ops.local.embedded_redis import EmbeddedRedis
from shared.errors import DuplicateJob, QueueFull
from shared.protocol.enqueue import Enqueued
from shared.protocol.jobs import JobState, SamplingParams
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import connect
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews


async def test_a_job_reaches_its_worker_as_it_was_sent(queue: Queue, actor) -> None:
    job = make_job(
        sampling=SamplingParams(
            seed=2**63 - 1,
            n=3,
            stop=("a", "\n"),
            presence_penalty=0.5,
            logit_bias=((5, -100.0), (7, 1.5)),
            left_out=("top_p", "min_p"),
        ),
        messages=({"role": "user", "content": "grüß <b> 猫\u2028 \x00"},),
        prompts=((1, 2, 3), "text"),
        echo=True,
    )
    await queue.enqueue(job, LIMITS)
    (claimed,) = await (await actor()).claim()
    assert claimed.job == job
    assert (claimed.try_, claimed.suspect) == (1, False)


async def test_an_id_is_accepted_once(queue: Queue, actor) -> None:
    job = make_job()
    await queue.enqueue(job, LIMITS)
    with pytest.raises(DuplicateJob, match="queued"):
        await queue.enqueue(job, LIMITS)
    await (await actor()).claim()
    with pytest.raises(DuplicateJob) as error:
        await queue.enqueue(job, LIMITS)
    assert error.value.state == JobState.RUNNING


async def test_a_limit_holds_under_concurrency(
    views: PoolViews, redis_url: str, keys: Keys
) -> None:
    clients = [connect(redis_url) for _ in range(8)]
    limits = replace(LIMITS, max_waiting_tenant=25)
    calls = [
        Queue(client, keys).enqueue(make_job(f"a{i % 3}@1"), limits)
        for i in range(10)
        for client in clients
    ]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for client in clients:
        await client.aclose()
    assert sum(isinstance(outcome, Enqueued) for outcome in outcomes) == 25
    assert sum(isinstance(outcome, QueueFull) for outcome in outcomes) == 55
    assert (await views.counts()).waiting == 25


async def test_enqueueing_stops_well_before_memory_is_used_up(
    own_server: EmbeddedRedis, open_client, keys: Keys
) -> None:
    redis = open_client(own_server.url)
    queue = Queue(redis, keys)
    used = (await redis.info("memory"))["used_memory"]
    await redis.config_set("maxmemory", used + 8_000_000)

    async def fill() -> None:
        for number in itertools.count():
            await queue.enqueue(make_job(), LIMITS)
            await redis.set(f"of-others-{number}", "x" * 100_000)
            await redis.hdel(keys.counters, "memory_ms")

    with pytest.raises(QueueFull, match="memory"):
        await fill()
    info = await redis.info("memory")
    assert info["used_memory"] < 0.9 * info["maxmemory"]


async def test_a_redis_without_memory_is_a_full_queue(
    own_server: EmbeddedRedis, open_client, keys: Keys
) -> None:
    redis = open_client(own_server.url)
    queue = Queue(redis, keys)
    await queue.enqueue(make_job(), LIMITS)
    await redis.config_set("maxmemory", 1)
    with pytest.raises(QueueFull) as error:
        await queue.enqueue(make_job(), LIMITS)
    assert (error.value.limit, error.value.num_waiting) == ("memory", 1)


async def test_a_suspect_runs_alone_from_its_first_try(actor, queue: Queue) -> None:
    worker, job, other = await actor(), make_job(), make_job()
    await queue.enqueue(job, LIMITS, is_suspect=True)
    await queue.enqueue(other, LIMITS)
    (claimed,) = await worker.claim()
    assert (claimed.job.id, claimed.suspect) == (job.id, True)
    assert await worker.claim(sequences=7) == []
    await worker.finish(claimed)
    (claimed,) = await worker.claim()
    assert (claimed.job.id, claimed.suspect) == (other.id, False)
