"""Situations of a job's way through the queue; each function makes some, and cleans up."""

from typing import Any

from ops.bench.compare.queue_latency import LEASE_MS
from ops.bench.scripts.large_pool import (
    AT_ONCE,
    BASE,
    KV_TOKENS,
    SHORT_LEASE_MS,
    LargePool,
    each,
    worker_info,
)
from shared.errors import ErrorCode, JobError
from shared.protocol.events import End
from shared.protocol.ids import AdapterVersion, WorkerId
from shared.protocol.jobs import ClaimedJob, JobState
from shared.protocol.results import Result, Usage

CALLS = 20
FEW = 5
"""Calls in situations that take long to make."""
RELEASED = 16


async def arrivals(pool: LargePool) -> None:
    """Enqueue jobs, and cancel them."""
    measuring = pool.meter.measuring
    await pool.meter.delete(pool.keys.idle)
    with measuring("nobody is parked"):
        jobs = [await pool.put(one) for one in pool.versions[:CALLS]]
    await pool.renew(SHORT_LEASE_MS)
    with measuring(f"{pool.sizes.workers:,} parked holders"):
        jobs += [await pool.put(BASE) for _ in range(CALLS)]
    news = [AdapterVersion(f"new{number}@1") for number in range(CALLS)]
    with measuring("a suspect, first of its version"):
        jobs += [await pool.put(new, is_suspect=True) for new in news]
    with measuring("waiting"):
        for job in jobs:
            await pool.queue.cancel(job.id)


async def claims_of_own(pool: LargePool) -> None:
    """Claim jobs of versions that the worker holds."""
    cold, others = pool.versions[len(pool.hot) :], [f"b{n}@1" for n in range(len(pool.versions))]
    many = f"{len(pool.versions):,} own versions"
    await _claim(pool, "nothing waits, no room to load", residents=[BASE])
    await _claim(pool, "16 jobs of 8 own versions", sequences=16, residents=cold[:8])
    await _claim(pool, "64 jobs of 512 own versions", sequences=AT_ONCE, residents=cold[:512])
    await _claim(pool, f"16 jobs of {many}", sequences=16, residents=pool.versions)
    await _claim(pool, f"{many}, none waits", residents=others)


async def claims_of_foreign(pool: LargePool) -> None:
    """Claim jobs of versions that the worker would load."""
    room = {"sequences": AT_ONCE, "max_cold": 8}
    last, many = pool.versions[-1:], f"{len(pool.versions):,} versions"
    await _claim(pool, f"{many} refused", residents=[BASE], refused=pool.versions, **room)
    await _claim(pool, "64 jobs, 8 loads", residents=[BASE], refused=pool.hot, **room)
    await _claim(pool, "64 jobs, 8 stolen versions", residents=[BASE], steal_ms=0, **room)
    await _claim(pool, "64 jobs, 8 loads, 64 looks at heads", residents=last, **room)


async def claims_in_vain(pool: LargePool) -> None:
    """Claim where the jobs in front can't be taken."""
    for _ in range(FEW):
        await each([BASE] * AT_ONCE, lambda base: pool.put(base, deadline_ms=1))
        await _claim(pool, "64 overdue heads", calls=1, residents=[BASE])
    larger = await pool.join(kv_tokens=10 * KV_TOKENS)
    jobs = [await pool.put(BASE, cost=5 * KV_TOKENS) for _ in range(4 * AT_ONCE)]
    await _claim(pool, "256 jobs for larger workers", residents=[BASE])
    await each(jobs, lambda job: pool.queue.cancel(job.id))
    await pool.queue.leave(larger)


async def running(pool: LargePool) -> None:
    """Publish, beat, reconcile and end jobs of a busy worker."""
    wid, jobs = await pool.busy()
    epochs = {claimed.job.id: claimed.epoch for claimed in jobs}
    loading = pool.versions[-8:]
    for cold in pool.versions[-CALLS:]:
        with pool.meter.measuring("nobody holds it"):
            await pool.queue.start_load(wid, cold)
    for _ in range(CALLS):
        with pool.meter.measuring("64 jobs, 8 checkpoints, 4 front ends"):
            await pool.publish(wid, jobs, num_checkpoints=8)
        with pool.meter.measuring("64 known jobs, 8 loads"):
            await pool.queue.beat(
                wid, lease_ms=LEASE_MS, info=worker_info(), loading=loading, known=epochs
            )
        with pool.meter.measuring("64 known jobs"):
            await pool.queue.reconcile(wid, list(epochs), grace_ms=0)
    await _ends(pool, wid, jobs)
    await pool.queue.leave(wid)


async def _ends(pool: LargePool, wid: WorkerId, jobs: tuple[ClaimedJob, ...]) -> None:
    with pool.meter.measuring("done"):
        for claimed in jobs[:CALLS]:
            await _finish(pool, wid, claimed)
    error = JobError(code=ErrorCode.CANCELLED, message="the job was cancelled")
    with pool.meter.measuring("running"):
        for claimed in jobs[CALLS : 2 * CALLS]:
            await pool.queue.cancel(claimed.job.id, error=error)


async def given_back(pool: LargePool) -> None:
    """Take jobs from workers that release them, don't know them, or leave."""
    for _ in range(FEW):
        wid, jobs = await pool.busy()
        await pool.publish(wid, jobs)
        with pool.meter.measuring("16 jobs, tokens shown"):
            await pool.queue.release(wid, [claimed.job.id for claimed in jobs[:RELEASED]])
        with pool.meter.measuring("48 jobs unknown to it", "reconcile"):
            await pool.queue.reconcile(wid, [], grace_ms=0)
        with pool.meter.measuring("without jobs", "leave", "forget_worker"):
            await pool.queue.leave(wid)
        wid, jobs = await pool.busy()
        await pool.publish(wid, jobs)
        with pool.meter.measuring("left with 64 jobs, tokens shown", "hand_on"):
            await pool.queue.leave(wid)


async def _claim(pool: LargePool, situation: str, *, calls: int = CALLS, **room: Any) -> None:
    """Claim in this situation, and give back what came."""
    wid = await pool.join(room.get("residents", ()))
    for _ in range(calls):
        with pool.meter.measuring(situation):
            claim = await pool.claim(wid, **room)
        await pool.queue.release(wid, [claimed.job.id for claimed in claim.jobs])
    await pool.queue.leave(wid)


async def _finish(pool: LargePool, wid: WorkerId, claimed: ClaimedJob) -> None:
    job, state = claimed.job.id, JobState.DONE
    usage = Usage(prompt_tokens=9, completion_tokens=9)
    end = End(job=job, try_=claimed.try_, state=state, usage=usage)
    await pool.queue.finish(wid, end, Result(job=job, state=state), epoch=claimed.epoch)
