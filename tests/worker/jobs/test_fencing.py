"""A worker drops jobs that it no longer owns in Redis, and learns of missed cancellations."""

from collections.abc import Sequence

import pytest
from scripted_engine import ScriptedEngine, expected_ids, expected_text
from worker_support import Client, check_answers, until

from shared.errors import RedisUnavailable
from shared.protocol.events import Event, Tokens
from shared.protocol.ids import ApiId, WorkerId
from shared.protocol.jobs import Job, JobState
from shared.protocol.queue_replies import Mail, MailKind, Standing
from shared.store.jobs.queue import Queue
from shared.store.jobs.token_streams import merge
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

LONG = 800


async def owner_of(client: Client, job: Job) -> WorkerId:
    view = await client.views.job(job.id)
    assert view
    assert view.worker
    return view.worker


async def test_a_job_of_another_claim_is_dropped_and_other_jobs_continue(
    client: Client, engine: ScriptedEngine, start, redis: Redis, keys: Keys
) -> None:
    async with start(engine, lease_ms=6000):
        fenced, other = await client.send(max_tokens=LONG), await client.send(max_tokens=LONG)
        for job in (fenced, other):
            await client.until_published(job, 3)
        await redis.zadd(keys.owned(await owner_of(client, fenced)), {fenced.id: 7})
        await until(lambda: len(engine.requests) == 1)
        num_published = len(client.tokens_of(fenced))
        assert (await client.end_of(other)).state is JobState.DONE
        assert len(client.tokens_of(fenced)) == num_published
    check_answers(client, [other])


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


async def test_full_checkpoints_are_written_after_redis_was_unavailable(
    client: Client, engine: ScriptedEngine, start, redis, keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failover may have dropped the last checkpoints."""
    publish, is_away = Queue.publish, False
    saved: list[Tokens] = []

    async def failing(
        queue: Queue,
        wid: WorkerId,
        events: dict[ApiId, Sequence[Event]],
        checkpoints: Sequence[Tokens] = (),
        **epochs: object,
    ) -> Standing:
        nonlocal is_away
        if is_away:
            is_away = False
            for job in jobs:
                await redis.delete(keys.checkpoints(job.id))
            saved.clear()
            raise RedisUnavailable("scripted")
        saved.extend(checkpoints)
        return await publish(queue, wid, events, checkpoints, **epochs)  # type: ignore[arg-type]

    async with start(engine):
        jobs = [await client.send(max_tokens=LONG, seed=seed) for seed in range(2)]
        for job in jobs:
            await client.until_published(job, 50)
        monkeypatch.setattr(Queue, "publish", failing)
        is_away = True
        for job in jobs:
            await client.end_of(job)
            (kept,) = merge(piece for piece in saved if piece.job == job.id)
            assert len(kept.ids) == LONG
    check_answers(client, jobs, may_repeat=True)
