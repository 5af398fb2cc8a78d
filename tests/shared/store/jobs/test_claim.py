"""Assignment of jobs to workers, and its order."""

import asyncio
from dataclasses import replace

import orjson
import pytest
from queue_support import LIMITS, make_job

from shared.protocol.codec import encode_job
from shared.protocol.queue_replies import Mail, MailKind
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys


async def age(redis: Redis, keys: Keys, *jobs, ms: int) -> None:
    """Move the enqueueing times of waiting jobs into the past."""
    for job in jobs:
        await redis.hincrby(keys.job(job.id), "enq", -ms)


async def test_a_claim_states_how_long_the_job_was_in_the_queue(
    actor, enqueue, redis: Redis, keys: Keys
) -> None:
    job, first, second = await enqueue(), await actor("w1"), await actor("w2")
    await age(redis, keys, job, ms=5000)
    (claimed,) = await first.claim()
    assert 5000 <= claimed.waited_ms < 8000
    await first.queue.release(first.id, [job.id])
    (claimed,) = await second.claim()
    assert (claimed.try_, claimed.waited_ms < 3000) == (2, True)


async def test_a_foreign_job_is_left_to_its_holder_until_steal_ms(
    actor, enqueue, redis: Redis, keys: Keys
) -> None:
    await actor("w2", holds=["b@1"])
    worker = await actor("w1", holds=["a@1"])
    job = await enqueue("b@1")
    claim = await worker.try_claim(max_cold=1, steal_ms=5000)
    assert claim.jobs == ()
    assert 4000 < claim.next_steal_ms <= 5001
    await age(redis, keys, job, ms=5001)
    assert await worker.claim_ids(max_cold=1, steal_ms=5000) == [job.id]


async def test_refused_adapters_are_left_to_others(actor, enqueue) -> None:
    first, second = await actor("w1", holds=[]), await actor("w2", holds=[])
    refused, job = await enqueue("bad@1"), await enqueue("c@1")
    assert await first.claim_ids(max_cold=5, steal_ms=0, refused=["bad@1"]) == [job.id]
    assert await second.claim_ids(max_cold=5) == [refused.id]


async def test_an_overdue_foreign_head_goes_before_own_jobs(
    actor, enqueue, redis: Redis, keys: Keys
) -> None:
    await actor("w2", holds=["b@1"])
    worker = await actor("w1", holds=["a@1"])
    foreign = [await enqueue("b@1") for _ in range(2)]
    own = [await enqueue("a@1") for _ in range(2)]
    await age(redis, keys, *foreign, ms=8 * 250 + 1)
    order = await worker.claim_ids(sequences=2, max_cold=1, steal_ms=250)
    assert order == [foreign[0].id, own[0].id]


async def test_the_oldest_job_of_a_cold_adapter_waits_no_longer_than_its_load(
    actor, enqueue, redis: Redis, keys: Keys
) -> None:
    worker = await actor(holds=["a@1"])
    cold, *own = [await enqueue(version) for version in ("c@1", "a@1", "a@1")]
    one = {"sequences": 1, "max_cold": 1, "load_ms": 5000}
    assert await worker.claim_ids(**one) == [own[0].id]
    await age(redis, keys, cold, ms=5001)
    assert await worker.claim_ids(**one) == [cold.id]
    assert await worker.claim_ids(**one) == [own[1].id]


async def test_an_idle_worker_helps_at_once_where_the_wait_is_longer_than_a_load(
    actor, enqueue, redis: Redis, keys: Keys
) -> None:
    busy, idle = await actor("w1", holds=["b@1"]), await actor("w2", holds=[])
    for _ in range(8):
        await enqueue("b@1")
    assert len(await busy.claim(sequences=8)) == 8
    job = await enqueue("b@1")
    await redis.hset(keys.counters, "run_ms", 100)
    assert await idle.claim(max_cold=1, steal_ms=3000) == []
    await redis.hset(keys.counters, "run_ms", 20_000)
    assert await idle.claim_ids(max_cold=1, steal_ms=3000) == [job.id]


async def test_an_idle_worker_leaves_a_job_to_a_holder_with_free_capacity(
    actor, enqueue, redis: Redis, keys: Keys
) -> None:
    holder, idle = await actor("w1", holds=["b@1"]), await actor("w2", holds=[])
    await redis.hset(keys.counters, "run_ms", 10**6)
    for _ in range(8):
        await enqueue("b@1")
    await holder.claim(sequences=7)  # it was woken, and would claim the last job next
    assert await idle.claim(max_cold=1, steal_ms=3000) == []


async def test_a_worker_that_finds_no_job_is_woken_by_the_next_one(actor, enqueue) -> None:
    worker = await actor()
    assert await worker.claim() == []
    job = await enqueue()
    assert await worker.queue.wait(worker.id, timeout_s=60) == Mail(kind=MailKind.JOB)
    assert await worker.claim_ids() == [job.id]


async def test_mail_that_only_a_later_release_knows_is_dropped(
    actor, queue: Queue, redis: Redis, keys: Keys
) -> None:
    worker = await actor()
    await redis.rpush(keys.mailbox(worker.id), "repaint w2", "job")
    assert await queue.wait(worker.id, timeout_s=1) is None
    assert await queue.wait(worker.id, timeout_s=1) == Mail(kind=MailKind.JOB)


async def test_waiting_for_mail_ends_in_time(actor, queue: Queue) -> None:
    assert await queue.wait((await actor()).id, timeout_s=0.05) is None


async def test_a_thousand_expired_jobs_are_cleared_in_bounded_steps(actor, enqueue, views) -> None:
    for _ in range(600):
        await enqueue(deadline_ms=0)
    worker = await actor()
    claim = await worker.try_claim()
    assert (claim.jobs, claim.next_steal_ms) == ((), 1)
    assert 0 < 600 - (await views.counts()).waiting < 100
    while (waiting := (await views.counts()).waiting) > 0:
        assert await worker.claim() == []
        assert (await views.counts()).waiting < waiting


async def test_a_job_whose_hash_was_deleted_is_dropped(actor, enqueue, redis, keys, views) -> None:
    job = await enqueue()
    await redis.delete(keys.job(job.id))
    assert await (await actor()).claim() == []
    assert (await views.counts()).waiting == 0


async def test_the_cost_of_a_claim_is_bounded_whatever_waits(
    actor, queue: Queue, redis: Redis
) -> None:
    async def commands_of_a_claim() -> int:
        before = (await redis.info("stats"))["total_commands_processed"]
        await worker.claim(max_cold=1)
        return (await redis.info("stats"))["total_commands_processed"] - before

    worker = await actor(holds=["a@1"])
    versions = [f"x{i}@1" for i in range(500)]
    await actor("w2", holds=versions)
    for version in versions:
        await queue.enqueue(make_job(version), LIMITS)
    assert await commands_of_a_claim() < 300


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"v": 99}, "protocol version 99"),
        ({"endpoint": "unheard-of"}, "unheard-of"),
        ({"sampling": {}}, "TypeError"),
    ],
)
async def test_an_undecodable_job_comes_apart_from_its_mates(
    actor, enqueue, redis, keys, change: dict[str, object], reason: str
) -> None:
    worker = await actor()
    jobs = [await enqueue() for _ in range(3)]
    body = orjson.loads(encode_job(jobs[1])) | change
    await redis.hset(keys.job(jobs[1].id), "body", orjson.dumps(body))
    claim = await worker.try_claim()
    assert [claimed.job for claimed in claim.jobs] == [jobs[0], jobs[2]]
    (unread,) = claim.undecodable
    assert (unread.id, unread.try_) == (jobs[1].id, 1)
    assert reason in unread.reason


async def test_a_worker_of_very_many_adapters_gets_the_first_jobs_of_its_own(
    actor, queue: Queue
) -> None:
    versions = [f"x{i}@1" for i in range(1500)]
    held = versions[200:]
    jobs = {version: make_job(version, priority=-i) for i, version in enumerate(versions)}
    limits = replace(LIMITS, max_waiting=10_000, max_waiting_tenant=10_000)
    for start in range(0, len(versions), 50):
        some = versions[start : start + 50]
        await asyncio.gather(*(queue.enqueue(jobs[version], limits) for version in some))
    ids = [jobs[version].id for version in versions]
    for number, reported in enumerate(([], held)):
        worker = await actor(f"w{number}", holds=reported)
        worker.holds = held
        first = 200 + 20 * number
        assert await worker.claim_ids(sequences=20) == ids[first : first + 20]
        worker.holds = versions[-30:]
        first = 1470 + 5 * number
        assert await worker.claim_ids(sequences=5) == ids[first : first + 5]


async def test_a_claim_goes_by_what_the_worker_says_now_not_by_what_it_told(actor, enqueue) -> None:
    worker = await actor(holds=["a@1", "b@1"])
    await enqueue("b@1")
    mine, loading = await enqueue("a@1"), await enqueue("c@1")
    worker.holds = ["a@1", "c@1"]  # it evicts b and loads c
    assert await worker.claim_ids() == [mine.id, loading.id]
