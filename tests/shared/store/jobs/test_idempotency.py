"""Requests with an idempotency key."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from queue_support import LIMITS, Actor, make_job

from shared.errors import ErrorCode, JobFailed, QueueFull
from shared.protocol.enqueue import Enqueued, EnqueueOptions, IdempotencyKey
from shared.protocol.jobs import JobState
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis, connect
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews


def keyed(key: str = "k", body: str = "b", **fields: Any) -> EnqueueOptions:
    return EnqueueOptions(idempotency=IdempotencyKey(key=key, body_digest=body), **fields)


async def ask(queue: Queue, options: EnqueueOptions, **fields: Any) -> Enqueued:
    return await queue.enqueue(make_job(**fields), LIMITS, options=options)


async def test_requests_with_the_same_key_and_body_share_a_job(
    queue: Queue, views: PoolViews
) -> None:
    first = await ask(queue, keyed())
    again = await ask(queue, keyed())
    assert first.is_new
    assert again == Enqueued(first.id, 0, is_new=False)
    assert (await views.counts()).waiting == 1


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


async def test_another_body_is_a_conflict(queue: Queue) -> None:
    await ask(queue, keyed(body="b"))
    with pytest.raises(JobFailed) as raised:
        await ask(queue, keyed(body="c"))
    assert raised.value.error.code is ErrorCode.IDEMPOTENCY_CONFLICT
    assert raised.value.error.status == 409


async def test_keys_belong_to_tenants(queue: Queue) -> None:
    assert (await ask(queue, keyed(), tenant="t1")).is_new
    assert (await ask(queue, keyed(), tenant="t2")).is_new


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


async def test_a_refused_request_doesn_t_use_up_its_key(queue: Queue) -> None:
    with pytest.raises(QueueFull):
        await queue.enqueue(make_job(), replace(LIMITS, max_waiting=0), options=keyed())
    assert (await ask(queue, keyed(body="c"))).is_new


async def test_a_job_that_its_clients_abandoned_is_not_replayed(
    queue: Queue, actor: Any, views: PoolViews
) -> None:
    worker: Actor = await actor()
    waiting, running = make_job(), make_job()
    await queue.enqueue(running, LIMITS, options=keyed("r"))
    (claimed,) = await worker.claim()
    await queue.enqueue(waiting, LIMITS, options=keyed("w"))
    for job in (waiting, running):
        await queue.abandon(job.id, job.reply_to, grace_ms=0)
    assert (await ask(queue, keyed("w"))).is_new
    assert (await ask(queue, keyed("r"))).is_new
    assert await worker.finish(claimed, JobState.CANCELLED) == "ok"
    assert not (await ask(queue, keyed("r"))).is_new


async def test_a_job_that_a_client_cancelled_is_replayed(queue: Queue) -> None:
    first = await ask(queue, keyed())
    await queue.cancel(first.id)
    assert (await ask(queue, keyed())).id == first.id


async def test_erasing_a_job_frees_its_key(queue: Queue) -> None:
    first = await ask(queue, keyed())
    await queue.cancel(first.id)
    await queue.erase(first.id)
    assert (await ask(queue, keyed(body="c"))).is_new


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


async def test_the_waiting_jobs_of_a_quarantined_version_are_not_replayed(
    queue: Queue, actor: Any, redis: Redis, keys: Keys
) -> None:
    await ask(queue, keyed())
    await redis.sadd(keys.doomed, "a@1")  # type: ignore[misc]
    await queue.reap()
    assert (await ask(queue, keyed())).is_new
