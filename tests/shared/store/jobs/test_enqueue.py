"""Requests that enter the queue: their limits in jobs and bytes, and their idempotency keys."""

import asyncio
import itertools
from dataclasses import replace
from typing import Any

import pytest
from queue_support import LIMITS, Actor, make_job

from ops.local.embedded_redis import EmbeddedRedis
from shared.errors import DuplicateJob, ErrorCode, QueueFull
from shared.protocol.enqueue import Enqueued, EnqueueOptions, IdempotencyKey, QueueLimits
from shared.protocol.jobs import Job, JobState, SamplingParams
from shared.store.jobs.dead_letters import DeadLetters
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis, connect
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


BODY = 100_000
TIGHT = replace(LIMITS, max_bytes=5 * BODY, max_bytes_tenant=3 * BODY)


def large_job(tenant: str, **changes: object) -> Job:
    return make_job(tenant=tenant, prompts=("x" * (BODY - 2000),), **changes)


async def fill(queue: Queue, tenant: str, limits: QueueLimits = TIGHT) -> tuple[list[Job], str]:
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


@pytest.mark.parametrize("is_large", [False, True])
async def test_a_dead_letter_keeps_a_small_body_only(
    actor, queue: Queue, views: PoolViews, redis: Redis, keys: Keys, is_large: bool
) -> None:
    worker = await actor()
    job = large_job("red") if is_large else make_job(tenant="red")
    await queue.enqueue(job, LIMITS)
    await worker.die_of(job)
    assert (await views.job(job.id)).state == JobState.DEAD
    letters = DeadLetters(redis, keys)
    (letter,) = await letters.dead(10)
    assert letter.id == job.id
    found = await letters.find(job.id)
    assert (found is None) == is_large
    assert await redis.memory_usage(keys.dead) < 5000


def keyed(key: str = "k", body: str = "b", **fields: Any) -> EnqueueOptions:
    return EnqueueOptions(idempotency=IdempotencyKey(key=key, body_digest=body), **fields)


async def ask(queue: Queue, options: EnqueueOptions, **fields: Any) -> Enqueued:
    return await queue.enqueue(make_job(**fields), LIMITS, options=options)


async def test_simultaneous_requests_with_one_key_make_one_job(
    redis_url: str, keys: Keys, views: PoolViews
) -> None:
    clients = [connect(redis_url) for _ in range(8)]
    calls = [ask(Queue(clients[i % 8], keys), keyed()) for i in range(50)]
    outcomes = await asyncio.gather(*calls)
    for client in clients:
        await client.aclose()
    assert len({outcome.id for outcome in outcomes}) == 1
    assert sum(outcome.is_new for outcome in outcomes) == 1
    assert (await views.counts()).waiting == 1


async def test_an_ended_job_answers_until_its_record_expires(
    queue: Queue, actor: Any, redis: Redis, keys: Keys
) -> None:
    worker: Actor = await actor()
    limits = replace(LIMITS, retain_ms=60_000)
    first = await queue.enqueue(make_job(), limits, options=keyed())
    (claimed,) = await worker.claim()
    await worker.finish(claimed)
    assert (await ask(queue, keyed())).id == first.id
    entry = keys.idempotency("default", IdempotencyKey(key="k", body_digest="b").digest)
    assert 0 < await redis.pttl(entry) <= 60_000
    await redis.delete(keys.job(first.id))
    assert (await ask(queue, keyed())).is_new


@pytest.mark.parametrize("is_preemptible", [False, True])
@pytest.mark.parametrize("code", ErrorCode)
async def test_a_job_is_kept_for_its_key_unless_its_error_says_try_again(
    queue: Queue, actor: Any, redis: Redis, keys: Keys, code: ErrorCode, is_preemptible: bool
) -> None:
    worker: Actor = await actor()
    kind = {"is_preemptible": is_preemptible}
    limits = replace(LIMITS, retain_ms=10**8)
    first = await queue.enqueue(make_job(**kind), limits, options=keyed())
    joined = await ask(queue, keyed(), **kind)
    (claimed,) = await worker.claim()
    await worker.fail(claimed, code)
    says_try_again = code.status in (429, 503)
    assert joined.id == first.id
    assert (await ask(queue, keyed(), **kind)).is_new is says_try_again
    left_ms = await redis.pttl(keys.job(first.id))
    assert (left_ms <= 60_000) is (says_try_again and is_preemptible)
