"""Requests with an idempotency key."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from queue_support import LIMITS, Actor, make_job

from shared.errors import HTTP_STATUS, ErrorCode, JobFailed
from shared.protocol.enqueue import Enqueued, EnqueueOptions, IdempotencyKey
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis, connect
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews


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


async def test_another_body_is_a_conflict(queue: Queue) -> None:
    await ask(queue, keyed(body="b"))
    with pytest.raises(JobFailed) as raised:
        await ask(queue, keyed(body="c"))
    assert raised.value.error.code is ErrorCode.IDEMPOTENCY_CONFLICT
    assert raised.value.error.status == 409


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
    says_try_again = HTTP_STATUS[code] in (429, 503)
    assert joined.id == first.id
    assert (await ask(queue, keyed(), **kind)).is_new is says_try_again
    left_ms = await redis.pttl(keys.job(first.id))
    assert (left_ms <= 60_000) is (says_try_again and is_preemptible)
