"""One loader for a version that nobody holds."""

from queue_support import INFO

from shared.store.connection import Redis
from shared.store.keys import Keys
from shared.store.queue import Queue


async def test_a_version_that_waits_and_nobody_holds_has_one_loader(
    actor, enqueue, queue: Queue
) -> None:
    first, second = await actor("w1", holds=[]), await actor("w2", holds=[])
    job = await enqueue("c@1")
    assert await queue.start_load(first.id, "c@1")
    assert await queue.start_load(first.id, "c@1"), "a lost reply may be asked for again"
    assert not await queue.start_load(second.id, "c@1")
    assert await second.claim(max_cold=1) == []
    await queue.set_residents(first.id, remove=["c@1"])
    assert await second.claim_ids(max_cold=1) == [job.id]


async def test_whoever_reads_ahead_may_claim_the_jobs_itself(actor, enqueue, queue: Queue) -> None:
    worker = await actor(holds=[])
    job = await enqueue("c@1")
    assert await queue.start_load(worker.id, "c@1")
    assert await worker.claim_ids(max_cold=1) == [job.id]


async def test_nothing_is_to_be_loaded_that_is_held_or_not_wanted(
    actor, enqueue, queue: Queue
) -> None:
    worker = await actor("w1", holds=[])
    await actor("w2", holds=["held@1"])
    await enqueue("held@1")
    assert not await queue.start_load(worker.id, "held@1")
    assert not await queue.start_load(worker.id, "unknown@1")
    await enqueue("c@1")
    await worker.die()
    assert not await queue.start_load(worker.id, "c@1")


async def test_a_beat_keeps_a_long_load_to_its_worker(
    actor, enqueue, queue: Queue, redis: Redis, keys: Keys
) -> None:
    first, second = await actor("w1", holds=[]), await actor("w2", holds=[])
    await enqueue("c@1")
    await queue.start_load(first.id, "c@1")
    await redis.pexpire(keys.loading("c@1"), 5000)
    await queue.beat(second.id, lease_ms=60_000, info=INFO, loading=["c@1"])
    assert await redis.pttl(keys.loading("c@1")) <= 5000
    await queue.beat(first.id, lease_ms=60_000, info=INFO, loading=["c@1", "other@1"])
    assert await redis.pttl(keys.loading("c@1")) > 5000
    assert not await redis.exists(keys.loading("other@1"))


async def test_heads_that_nobody_holds_are_seen_in_the_order_of_their_jobs(
    actor, enqueue, queue: Queue
) -> None:
    await actor("w1", holds=["held@1"])
    for version in ("b@1", "held@1", "a@1", "b@1", "c@1"):
        await enqueue(version)
    assert await queue.cold_heads(8) == ["b@1", "a@1", "c@1"]
    assert await queue.cold_heads(2) == ["b@1", "a@1"]
