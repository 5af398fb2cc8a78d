"""A job whose workers died runs alone. If it kills them even then, it becomes a dead letter."""

from queue_support import Actor

from shared.protocol.jobs import JobState
from shared.store.jobs.queue import Queue
from shared.store.views.pool_views import PoolViews


async def die_alone(worker: Actor, job_id: str) -> None:
    """Let a worker die while it runs this job alone, and start it again."""
    assert await worker.claim_ids(sequences=1) == [job_id]
    await worker.die()
    await worker.register()


async def die_together(worker: Actor, *job_ids: str) -> None:
    """Let a worker die while it runs these jobs, and start it again."""
    assert await worker.claim_ids() == list(job_ids)
    await worker.die()
    await worker.register()


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


async def bury(worker: Actor, enqueue, version: str = "a@1"):
    job = await enqueue(version, priority=1)
    for _ in range(3):
        await die_alone(worker, job.id)
    return job


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
