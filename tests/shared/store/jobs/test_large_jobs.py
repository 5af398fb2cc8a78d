"""A large job or a suspect blocks only the worker that drains for it."""

from collections import Counter
from dataclasses import replace

import pytest
from queue_support import INFO, LIMITS, NEVER_MS, Actor, eventually, make_job

from shared.errors import ErrorCode, JobFailed
from shared.protocol.enqueue import QueueLimits
from shared.protocol.ids import JobId, WorkerId
from shared.protocol.jobs import ClaimedJob
from shared.store.jobs.queue import Queue
from shared.store.views.pool_views import PoolViews

MOST = 1000
"""Capacity of a worker in tokens."""
ROOMY = QueueLimits(
    max_waiting=NEVER_MS, max_waiting_adapter=NEVER_MS, max_waiting_tenant=NEVER_MS, retain_ms=1000
)


@pytest.fixture
async def small_and_large(queue: Queue, redis, keys) -> tuple[Actor, Actor]:
    """Workers with a capacity of MOST and of twice as many tokens."""
    workers = (
        Actor(queue, redis, keys, "small", ["a@1"]),
        Actor(queue, redis, keys, "large", ["a@1"]),
    )
    for worker, tokens in zip(workers, (MOST, 2 * MOST), strict=True):
        info = replace(INFO, kv_tokens=tokens)
        await queue.register(worker.id, lease_ms=60_000, info=info, residents=worker.holds)
    return workers


async def test_a_job_that_exceeds_every_live_worker_is_refused(
    small_and_large: tuple[Actor, Actor], queue: Queue
) -> None:
    _, large = small_and_large
    await queue.enqueue(make_job(cost=2 * MOST), LIMITS)
    with pytest.raises(JobFailed) as failed:
        await queue.enqueue(make_job(cost=2 * MOST + 1), LIMITS)
    assert failed.value.error.status == 400
    assert failed.value.error.code == ErrorCode.CONTEXT_LENGTH_EXCEEDED
    assert "2001 tokens" in failed.value.error.message
    await queue.leave(large.id)
    with pytest.raises(JobFailed):
        await queue.enqueue(make_job(cost=MOST + 1), LIMITS)


async def test_without_a_live_worker_any_job_is_accepted(enqueue) -> None:
    await enqueue(cost=NEVER_MS)


async def test_a_large_job_is_left_to_a_worker_with_the_capacity_for_it(
    small_and_large: tuple[Actor, Actor], queue: Queue
) -> None:
    small, large = small_and_large
    job, behind = make_job(cost=MOST + 1), make_job()
    for each in (job, behind):
        await queue.enqueue(each, LIMITS)
    assert await small.claim_ids(tokens=MOST) == [behind.id]
    assert await large.claim_ids(tokens=2 * MOST) == [job.id]


async def test_no_worker_idles_while_small_jobs_wait_after_a_large_one(
    actor, enqueue, queue: Queue, views: PoolViews
) -> None:
    """1,000 small jobs and one that needs a whole worker, on four workers with ten slots each."""
    slots, tokens = 10, 1000
    workers = [await actor(f"w{i}") for i in range(4)]
    running: dict[WorkerId, list[ClaimedJob]] = {worker.id: [] for worker in workers}
    small = [make_job(cost=100) for _ in range(1000)]
    large = make_job(cost=tokens)
    for job in (*small[:100], large, *small[100:]):
        await queue.enqueue(job, ROOMY)
    ends: list[JobId] = []
    idle: Counter[WorkerId] = Counter()
    while len(ends) < 1001:
        for worker in workers:
            mine = running[worker.id]
            for _ in range(2):  # as workers do: until no job is returned
                used = sum(c.job.cost for c in mine)
                mine += await worker.claim(sequences=slots - len(mine), tokens=tokens - used)
            if not mine and (await views.counts()).waiting:
                idle[worker.id] += 1
        for worker in workers:
            if mine := running[worker.id]:
                done = mine.pop(0)
                await worker.finish(done)
                ends.append(done.job.id)
    assert not idle
    assert ends.index(large.id) < 400  # the large job isn't delayed forever
    await eventually(lambda: _is_empty(views))


async def _is_empty(views: PoolViews) -> bool:
    return (await views.counts()).waiting == 0


async def test_a_small_worker_reaches_small_jobs_after_many_large_ones(
    small_and_large: tuple[Actor, Actor], queue: Queue
) -> None:
    small, _ = small_and_large
    for _ in range(150):
        await queue.enqueue(make_job(cost=MOST + 1), ROOMY)
    behind = make_job()
    await queue.enqueue(behind, ROOMY)

    async def gets_it() -> bool:
        claim = await small.try_claim(tokens=MOST)
        assert claim.next_steal_ms is None or claim.jobs
        return [claimed.job.id for claimed in claim.jobs] == [behind.id]

    await eventually(gets_it)


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


async def test_a_reservation_ends_with_its_worker(actor, enqueue) -> None:
    first, second = await actor("w1"), await actor("w2")
    for worker in (first, second):
        await enqueue(cost=100)
        await worker.claim(tokens=MOST)
    large = await enqueue(cost=MOST)
    assert await first.claim(tokens=MOST - 100) == []
    await first.die()
    mine = await second.claim(tokens=MOST - 100)
    assert large.id not in {c.job.id for c in mine}
    assert not await second.is_parked()
