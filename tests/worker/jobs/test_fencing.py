"""A worker drops what Redis no longer has booked on it, and hears what it missed."""

from collections.abc import Sequence

import pytest
from scripted_engine import ScriptedEngine, expected_ids, expected_text
from worker_support import Client, all_seamless, until

from shared.errors import RedisUnavailable
from shared.protocol.events import Event, Tokens
from shared.protocol.ids import ApiId, WorkerId
from shared.protocol.jobs import Job, JobState
from shared.store.connection import Redis
from shared.store.keys import Keys
from shared.store.queue import Queue
from shared.store.queue_replies import Mail, Standing
from shared.store.token_streams import shown

LONG = 800


async def owner_of(client: Client, job: Job) -> WorkerId:
    view = await client.queue.job_view(job.id)
    assert view
    assert view.worker
    return view.worker


async def test_a_job_of_another_claim_is_dropped_and_its_mates_go_on(
    client: Client, engine: ScriptedEngine, start, redis: Redis, keys: Keys
) -> None:
    async with start(engine, lease_ms=6000):
        fenced, mate = await client.send(max_tokens=LONG), await client.send(max_tokens=LONG)
        for job in (fenced, mate):
            await client.until_shown(job, 3)
        await redis.zadd(keys.owned(await owner_of(client, fenced)), {fenced.id: 7})
        await until(lambda: len(engine.requests) == 1)
        num_shown = len(client.tokens_of(fenced))
        assert (await client.end_of(mate)).state is JobState.DONE
        assert len(client.tokens_of(fenced)) == num_shown
    all_seamless(client, [mate])


async def test_a_job_whose_claim_redis_forgot_is_computed_by_one_claim_only(
    client: Client, engine: ScriptedEngine, start, redis: Redis, keys: Keys
) -> None:
    """A failover may bring a try back, and the same worker may be the one that claims again."""
    async with start(engine, lease_ms=6000):
        job = await client.send(max_tokens=LONG)
        await client.until_shown(job, 20)
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
        (choice,) = (await client.queue.result(job.id)).choices
    assert list(choice.ids) == expected_ids(job.sampling.seed, 0, LONG, job.version)
    assert choice.text == expected_text(choice.ids)
    assert engine.most_at_once == 1
    assert len(set(engine.seen)) == 2


async def test_a_job_that_nothing_is_published_of_is_dropped_at_a_beat(
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


async def test_a_cancellation_whose_mail_is_lost_still_ends_the_job(
    client: Client, engine: ScriptedEngine, start, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = Queue.wait

    async def losing(queue: Queue, wid: WorkerId, *, timeout_s: float) -> Mail | None:
        mail = await wait(queue, wid, timeout_s=timeout_s)
        return None if mail and mail.kind == "cancel" else mail

    monkeypatch.setattr(Queue, "wait", losing)
    async with start(engine):
        job = await client.send(max_tokens=LONG)
        await client.until_shown(job, 3)
        await client.queue.cancel(job.id)
        end = await client.end_of(job)
    assert (end.state, end.usage.completion_tokens < LONG) == (JobState.CANCELLED, True)


async def test_after_redis_was_away_the_checkpoints_are_written_anew(
    client: Client, engine: ScriptedEngine, start, redis, keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have come back without the last ones, as after a failover."""
    publish, is_away = Queue.publish, False

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
            raise RedisUnavailable("scripted")
        return await publish(queue, wid, events, checkpoints, **epochs)  # type: ignore[arg-type]

    async with start(engine):
        jobs = [await client.send(max_tokens=LONG, seed=seed) for seed in range(2)]
        for job in jobs:
            await client.until_shown(job, 50)
        monkeypatch.setattr(Queue, "publish", failing)
        is_away = True
        for job in jobs:
            await client.end_of(job)
            (kept,) = await shown(redis, keys, job.id)
            assert len(kept.ids) == LONG
    all_seamless(client, jobs, may_repeat=True)
