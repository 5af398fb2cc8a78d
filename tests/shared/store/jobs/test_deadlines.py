"""A job ends at its deadline, independent of its worker and its client."""

from queue_support import INFO, NEVER_MS

from shared.errors import ErrorCode
from shared.protocol.jobs import JobState
from shared.protocol.queue_replies import FinishOutcome
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys


async def test_a_claim_includes_the_time_until_the_deadline(actor, enqueue) -> None:
    worker = await actor()
    await enqueue(deadline_ms=30_000)
    (claimed,) = await worker.claim()
    assert 25_000 < claimed.left_ms <= 30_000


async def test_a_sweep_ends_an_overdue_running_job_that_its_worker_does_not_end(
    actor, enqueue, events, queue: Queue, redis: Redis, keys: Keys
) -> None:
    worker, job = await actor(), await enqueue(deadline_ms=60_000)
    (claimed,) = await worker.claim()
    await redis.hincrby(keys.job(job.id), "deadline", -60_000)
    await redis.zincrby(keys.due, -60_000, job.id)
    assert (await queue.reap()).expired == 0  # its worker has a few seconds to end it
    await redis.hincrby(keys.job(job.id), "deadline", -60_000)
    await redis.zincrby(keys.due, -60_000, job.id)
    assert (await queue.reap()).expired == 1
    (end,) = await events(job)
    assert (end.state, end.error.code) == (JobState.EXPIRED, ErrorCode.DEADLINE_EXCEEDED)
    known = {job.id: claimed.claim_epoch}
    beat = await queue.beat(worker.id, lease_ms=6000, info=INFO, known=known)
    assert (beat.booked, beat.fenced) == (0, {job.id})
    assert await worker.finish(claimed) == FinishOutcome.FENCED


async def test_stalls_of_redis_do_not_count_towards_deadlines(
    actor, enqueue, queue: Queue, redis: Redis, keys: Keys
) -> None:
    await queue.reap()
    early = await enqueue(deadline_ms=10_000)
    late = await enqueue(deadline_ms=NEVER_MS)
    await redis.hincrby(keys.counters, "swept", -60_000)
    await redis.hincrby(keys.job(early.id), "deadline", -60_000)
    await redis.zincrby(keys.due, -60_000, early.id)
    worker = await actor()
    assert await worker.claim_ids(sequences=1) == [early.id]  # before any sweep
    await queue.release(worker.id, [early.id])
    await queue.reap()
    after = await enqueue(deadline_ms=10_000)
    assert await worker.claim_ids() == [early.id, late.id, after.id]
