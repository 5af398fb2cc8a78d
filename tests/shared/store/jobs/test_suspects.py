"""A job whose workers died runs alone. If it kills them even then, it becomes a dead letter."""

from shared.protocol.jobs import JobState
from shared.store.jobs.queue import Queue
from shared.store.views.pool_views import PoolViews


async def test_a_reservation_ends_when_its_worker_stops_renewing_it(
    actor, enqueue, redis, keys
) -> None:
    victim, silent, other = [await actor(name) for name in ("w1", "w2", "w3")]
    suspect = await enqueue()
    await victim.claim()
    for worker in (silent, other):
        await enqueue()
        await worker.claim()
    await victim.die()
    await silent.claim(sequences=7)
    await redis.hset(keys.job(suspect.id), "reserved", f"{silent.id} 1")
    waiting = await enqueue()
    assert await other.claim(sequences=7) == []
    assert await silent.claim_ids(sequences=7) == [waiting.id]


async def test_waiting_jobs_of_all_quarantined_versions_end(
    actor, enqueue, queue: Queue, views: PoolViews, redis, keys
) -> None:
    worker = await actor(holds=["b@1"])
    await enqueue("b@1")
    await worker.claim()  # a running job keeps its version in `doomed`
    waiting = [await enqueue("a@1") for _ in range(100)]
    await redis.sadd(keys.doomed, "a@1", "b@1")
    await queue.reap()
    states = {(await views.job(job.id)).state for job in waiting}
    assert states == {JobState.FAILED}
    assert await redis.smembers(keys.doomed) == {b"b@1"}
