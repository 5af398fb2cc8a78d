"""Situations of the scripts on a job's path through the queue.

Each case sets up situations in the pool, measures script calls in them, and restores the pool.
"""

from typing import Any

from large_pool import (
    APIS,
    BASE,
    BATCH,
    KV_TOKENS,
    SHORT_LEASE_MS,
    LargePool,
    each,
    worker_info,
)
from synthetic_pool import LEASE_MS

from shared.errors import ErrorCode, JobError
from shared.protocol.access.rights import Access, KeyLimits, Scope
from shared.protocol.capabilities import Capabilities
from shared.protocol.embeddings import EmbeddingParams
from shared.protocol.events import End
from shared.protocol.ids import AdapterVersion, ApiId, WorkerId
from shared.protocol.jobs import ClaimedJob, JobState
from shared.protocol.results import Result, Usage
from shared.store.access.key_store import KeyStore

CALLS = 20
FEW = 5
"""Number of repetitions for situations that take long to set up."""
RELEASED = 16
LIMITED = Capabilities(kinds=frozenset(), features=frozenset(), max_rank=8)
"""Capabilities of a worker that serves none of the pool's adapters."""
DEAD_FOR_MS = 3_600_000
MAX_FOLLOWERS = 8
"""Maximum number of front ends that can be attached to a job."""
RIGHTS = Access(tenant="bench", scopes=frozenset({Scope.INFERENCE}))
KEY_LIMITS = KeyLimits(
    requests_per_minute=10**9,
    tokens_per_minute=10**9,
    requests_per_day=10**9,
    tokens_per_day=10**9,
)


async def arrivals(pool: LargePool) -> None:
    """Measure enqueuing and cancelling jobs."""
    measuring = pool.meter.measuring
    await pool.meter.delete(pool.keys.idle)
    with measuring("no worker is parked"):
        jobs = [await pool.put(one) for one in pool.versions[:CALLS]]
    await pool.renew(SHORT_LEASE_MS)
    with measuring(f"{pool.sizes.workers:,} parked holders"):
        jobs += [await pool.put(BASE) for _ in range(CALLS)]
    new_versions = [AdapterVersion(f"new{number}@1") for number in range(CALLS)]
    with measuring("a suspect, first job of its version"):
        jobs += [await pool.put(version, is_suspect=True) for version in new_versions]
    key, _ = await KeyStore(pool.meter, pool.keys).create(RIGHTS, KEY_LIMITS)
    with measuring("a key with limits"):
        jobs += [await pool.put(BASE, key_id=key.id) for _ in range(CALLS)]
    with measuring("waiting"):
        for job in jobs:
            await pool.queue.cancel(job.id)


async def claims_of_own(pool: LargePool) -> None:
    """Measure claims of jobs whose versions are resident on the worker."""
    cold, others = pool.versions[len(pool.hot) :], [f"b{n}@1" for n in range(len(pool.versions))]
    many = f"{len(pool.versions):,} resident versions"
    await _claim(pool, "nothing waits, no loads allowed", residents=[BASE])
    await _claim(pool, "16 jobs of 8 resident versions", sequences=16, residents=cold[:8])
    await _claim(pool, "64 jobs of 512 resident versions", sequences=BATCH, residents=cold[:512])
    await _claim(pool, f"16 jobs of {many}", sequences=16, residents=pool.versions)
    await _claim(pool, f"{many}, none waits", residents=others)


async def claims_of_foreign(pool: LargePool) -> None:
    """Measure claims of jobs whose versions the worker would have to load."""
    limits = {"sequences": BATCH, "max_cold": 8}
    last, many = pool.versions[-1:], f"{len(pool.versions):,} versions"
    await _claim(pool, f"{many} refused", residents=[BASE], refused=pool.versions, **limits)
    await _claim(pool, "64 jobs, 8 loads", residents=[BASE], refused=pool.hot, **limits)
    await _claim(pool, "64 jobs, 8 stolen versions", residents=[BASE], steal_ms=0, **limits)
    await _claim(pool, "64 jobs, 8 loads, 64 queue heads read", residents=last, **limits)


async def claims_in_vain(pool: LargePool) -> None:
    """Measure claims when the first jobs in the queue can't be taken."""
    for _ in range(FEW):
        await each([BASE] * BATCH, lambda base: pool.put(base, deadline_ms=1))
        await _claim(pool, "64 overdue heads", calls=1, residents=[BASE])
    larger = await pool.join(kv_tokens=10 * KV_TOKENS)
    jobs = [await pool.put(BASE, cost=5 * KV_TOKENS) for _ in range(4 * BATCH)]
    await _claim(pool, "256 jobs for larger workers", residents=[BASE])
    await each(jobs, lambda job: pool.queue.cancel(job.id))
    await pool.queue.leave(larger)


async def mixed_pool(pool: LargePool) -> None:
    """Measure calls in a pool with a worker that doesn't serve the waiting jobs."""
    limited = await pool.join([BASE], serves=LIMITED)
    foreign = {"max_cold": 8, "steal_ms": 0, "residents": [BASE], "serves": LIMITED}
    for _ in range(CALLS):
        with pool.meter.measuring(f"a limited worker, {len(pool.versions):,} versions for others"):
            await pool.claim(limited, **foreign)
    jobs = [await pool.put(BASE, embedding=EmbeddingParams()) for _ in range(4 * BATCH)]
    for _ in range(CALLS):
        with pool.meter.measuring("a limited worker, 256 jobs for others"):
            await pool.claim(limited, residents=[BASE], serves=LIMITED)
    with pool.meter.measuring("parked workers of two classes"):
        jobs += [await pool.put(one) for one in pool.versions[:CALLS]]
    await each(jobs, lambda job: pool.queue.cancel(job.id))
    with pool.meter.measuring("the last worker of its class", "leave"):
        await pool.queue.leave(limited)


async def running(pool: LargePool) -> None:
    """Measure calls for a busy worker: start load, publish, beat, reconcile, finish and cancel."""
    worker, jobs = await pool.busy()
    epochs = {claimed.job.id: claimed.claim_epoch for claimed in jobs}
    loading = pool.versions[-8:]
    for cold in pool.versions[-CALLS:]:
        with pool.meter.measuring("no holder"):
            await pool.residency.start_load(worker, cold)
    for _ in range(CALLS):
        with pool.meter.measuring("64 jobs, 8 checkpoints, 4 front ends"):
            await pool.publish(worker, jobs, num_checkpoints=8)
        with pool.meter.measuring("64 known jobs, 8 loads"):
            await pool.queue.beat(
                worker, lease_ms=LEASE_MS, info=worker_info(), loading=loading, known=epochs
            )
        with pool.meter.measuring("64 known jobs"):
            await pool.queue.reconcile(worker, list(epochs), grace_ms=0)
    await _ends(pool, worker, jobs)
    await pool.queue.leave(worker)


async def _ends(pool: LargePool, worker: WorkerId, jobs: tuple[ClaimedJob, ...]) -> None:
    with pool.meter.measuring("done"):
        for claimed in jobs[:CALLS]:
            await _finish(pool, worker, claimed)
    error = JobError(code=ErrorCode.CANCELLED, message="the job was cancelled")
    with pool.meter.measuring("running"):
        for claimed in jobs[CALLS : 2 * CALLS]:
            await pool.queue.cancel(claimed.job.id, error=error)


async def followed(pool: LargePool) -> None:
    """Measure calls for clients that come back, go away, and erase their jobs."""
    worker, jobs = await pool.busy()
    others = [ApiId(f"bench-other-{number}") for number in range(MAX_FOLLOWERS)]
    for claimed in jobs[:CALLS]:
        for api in others:
            with pool.meter.measuring("attached front ends"):
                await pool.queue.attach(claimed.job.id, api)
    with pool.meter.measuring("64 jobs, 20 followed by 8 more front ends"):
        await pool.publish(worker, jobs)
    await _front_ends_die(pool, jobs)
    for claimed in jobs[:CALLS]:
        for api in (*others, claimed.job.reply_to):
            with pool.meter.measuring("running, no grace"):
                await pool.queue.abandon(claimed.job.id, api, grace_ms=0)
    for claimed in jobs:
        await _finish(pool, worker, claimed)
    with pool.meter.measuring("ended"):
        for claimed in jobs[:CALLS]:
            await pool.queue.erase(claimed.job.id)
    await pool.meter.hset(pool.keys.counters, "retain_bytes", "0")  # type: ignore[misc]
    with pool.meter.measuring("a page beyond the limit in bytes"):
        await pool.queue.retain()
    await pool.queue.leave(worker)


async def _front_ends_die(pool: LargePool, jobs: tuple[ClaimedJob, ...]) -> None:
    """Measure the report of a front end, and the sweep that abandons the jobs of dead ones."""
    for api in {*APIS, *(claimed.job.reply_to for claimed in jobs)}:
        with pool.meter.measuring("a front end"):
            await pool.queue.beat_api(api)
        await pool.meter.zincrby(pool.keys.apis, -DEAD_FOR_MS, api)
    for _ in range(CALLS):
        with pool.meter.measuring("64 jobs of dead front ends", "abandon_dead"):
            await pool.queue.reap()


async def given_back(pool: LargePool) -> None:
    """Measure the calls that return a worker's jobs to the queue: release, reconcile and leave."""
    for _ in range(FEW):
        worker, jobs = await pool.busy()
        await pool.publish(worker, jobs)
        with pool.meter.measuring("16 jobs, tokens published"):
            await pool.queue.release(worker, [claimed.job.id for claimed in jobs[:RELEASED]])
        with pool.meter.measuring("48 jobs unknown to the worker", "reconcile"):
            await pool.queue.reconcile(worker, [], grace_ms=0)
        with pool.meter.measuring("without jobs", "leave", "forget_worker"):
            await pool.queue.leave(worker)
        worker, jobs = await pool.busy()
        await pool.publish(worker, jobs)
        with pool.meter.measuring("left with 64 jobs, tokens published", "hand_on"):
            await pool.queue.leave(worker)


async def _claim(pool: LargePool, situation: str, *, calls: int = CALLS, **arguments: Any) -> None:
    """Measure `calls` claims by a new worker, and release the claimed jobs after each claim."""
    worker = await pool.join(arguments.get("residents", ()))
    for _ in range(calls):
        with pool.meter.measuring(situation):
            claim = await pool.claim(worker, **arguments)
        await pool.queue.release(worker, [claimed.job.id for claimed in claim.jobs])
    await pool.queue.leave(worker)


async def _finish(pool: LargePool, worker: WorkerId, claimed: ClaimedJob) -> None:
    job, state = claimed.job.id, JobState.DONE
    usage = Usage(prompt_tokens=9, completion_tokens=9)
    end = End(job=job, try_=claimed.try_, state=state, usage=usage)
    await pool.queue.finish(
        worker, end, Result(job=job, state=state), claim_epoch=claimed.claim_epoch
    )
