"""A worker drops jobs that it no longer owns in Redis, and learns of missed cancellations."""

import pytest
from scripted_engine import ScriptedEngine, expected_ids, expected_text
from worker_support import Client, until

from shared.protocol.ids import WorkerId
from shared.protocol.jobs import Job, JobState
from shared.protocol.queue_replies import Mail, MailKind
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

LONG = 800


async def owner_of(client: Client, job: Job) -> WorkerId:
    view = await client.views.job(job.id)
    assert view
    assert view.worker
    return view.worker


async def test_a_job_whose_claim_redis_lost_is_published_by_one_claim_only(
    client: Client, engine: ScriptedEngine, start, redis: Redis, keys: Keys
) -> None:
    """After a failover the same worker may claim the job again, under the same try."""
    async with start(engine, lease_ms=6000):
        job = await client.send(max_tokens=LONG)
        await client.until_published(job, 20)
        wid = await owner_of(client, job)
        async with redis.pipeline(transaction=True) as rollback:
            rollback.zrem(keys.owned(wid), job.id)
            rollback.hset(keys.job(job.id), mapping={"state": "queued", "try": 0})
            rollback.hdel(keys.job(job.id), "owner")
            rollback.zadd(keys.queue(job.version), {job.id: 0})
            rollback.zadd(keys.ready, {job.version: 0})
            rollback.hincrby(keys.counters, "waiting", 1)
            rollback.delete(keys.checkpoints(job.id))
            rollback.rpush(keys.mailbox(wid), "job")
            await rollback.execute()
        await client.end_of(job)
        (choice,) = (await client.views.job_and_result(job.id))[1].choices
    assert list(choice.ids) == expected_ids(job.sampling.seed, 0, LONG, job.version)
    assert choice.text == expected_text(choice.ids)
    assert engine.max_concurrent == 1
    assert len(set(engine.added_ids)) == 2


async def test_a_job_without_publications_is_dropped_at_the_next_beat(
    client: Client, engine: ScriptedEngine, start, redis: Redis, keys: Keys
) -> None:
    engine.may_step.clear()
    async with start(engine, lease_ms=600):
        job = await client.send()
        await until(lambda: engine.requests)
        await redis.zrem(keys.owned(await owner_of(client, job)), job.id)
        engine_has_dropped = until(lambda: not engine.requests)
        engine.may_step.set()
        await engine_has_dropped


async def test_a_cancellation_whose_message_is_lost_still_ends_the_job(
    client: Client, engine: ScriptedEngine, start, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = Queue.wait

    async def losing(queue: Queue, wid: WorkerId, *, timeout_s: float) -> Mail | None:
        mail = await wait(queue, wid, timeout_s=timeout_s)
        return None if mail and mail.kind is MailKind.CANCEL else mail

    monkeypatch.setattr(Queue, "wait", losing)
    async with start(engine):
        job = await client.send(max_tokens=LONG)
        await client.until_published(job, 3)
        await client.queue.cancel(job.id)
        end = await client.end_of(job)
    assert (end.state, end.usage.completion_tokens < LONG) == (JobState.CANCELLED, True)
