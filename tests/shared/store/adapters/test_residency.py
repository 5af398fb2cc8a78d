"""Exclusive loads of versions that no worker holds."""

from queue_support import INFO

from shared.store.adapters.residency import ResidencyStore
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys


async def test_a_waiting_version_without_a_holder_has_one_loader(
    actor, enqueue, residency: ResidencyStore
) -> None:
    first, second = await actor("w1", holds=[]), await actor("w2", holds=[])
    job = await enqueue("c@1")
    assert await residency.start_load(first.id, "c@1")
    assert await residency.start_load(first.id, "c@1"), (
        "the call may be repeated after a lost reply"
    )
    assert not await residency.start_load(second.id, "c@1")
    assert await second.claim(max_cold=1) == []
    await residency.set_residents(first.id, remove=["c@1"])
    assert await second.claim_ids(max_cold=1) == [job.id]


async def test_a_worker_that_loads_a_version_may_claim_its_jobs(
    actor, enqueue, residency: ResidencyStore
) -> None:
    worker = await actor(holds=[])
    job = await enqueue("c@1")
    assert await residency.start_load(worker.id, "c@1")
    assert await worker.claim_ids(max_cold=1) == [job.id]


async def test_a_version_with_a_holder_or_without_jobs_is_not_loaded(
    actor, enqueue, residency: ResidencyStore
) -> None:
    worker = await actor("w1", holds=[])
    await actor("w2", holds=["held@1"])
    await enqueue("held@1")
    assert not await residency.start_load(worker.id, "held@1")
    assert not await residency.start_load(worker.id, "unknown@1")
    await enqueue("c@1")
    await worker.die()
    assert not await residency.start_load(worker.id, "c@1")


async def test_a_heartbeat_renews_the_exclusive_load_of_a_version(
    actor, enqueue, queue: Queue, residency: ResidencyStore, redis: Redis, keys: Keys
) -> None:
    first, second = await actor("w1", holds=[]), await actor("w2", holds=[])
    await enqueue("c@1")
    await residency.start_load(first.id, "c@1")
    await redis.pexpire(keys.loading("c@1"), 5000)
    await queue.beat(second.id, lease_ms=60_000, info=INFO, loading=["c@1"])
    assert await redis.pttl(keys.loading("c@1")) <= 5000
    await queue.beat(first.id, lease_ms=60_000, info=INFO, loading=["c@1", "other@1"])
    assert await redis.pttl(keys.loading("c@1")) > 5000
    assert not await redis.exists(keys.loading("other@1"))


async def test_waiting_versions_without_a_holder_are_listed_in_the_order_of_their_jobs(
    actor, enqueue, residency: ResidencyStore
) -> None:
    await actor("w1", holds=["held@1"])
    for version in ("b@1", "held@1", "a@1", "b@1", "c@1"):
        await enqueue(version)
    assert await residency.cold_heads(8) == ["b@1", "a@1", "c@1"]
    assert await residency.cold_heads(2) == ["b@1", "a@1"]
