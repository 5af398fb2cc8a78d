"""Situations of the scripts on a job's path through the queue, of batches and of files.

Each case brings about situations in the pool, and restores the pool.
"""

from typing import Any

from batch_records import lines, make_batch, make_file
from large_pool import (
    APIS,
    BASE,
    BATCH,
    KV_TOKENS,
    LEASE_MS,
    SHORT_LEASE_MS,
    LargePool,
    each,
    worker_info,
)

from shared.errors import ErrorCode, JobError
from shared.protocol.access.rights import Access, KeyLimits, Scope
from shared.protocol.capabilities import Capabilities
from shared.protocol.embeddings import EmbeddingParams
from shared.protocol.events import End
from shared.protocol.ids import AdapterVersion, ApiId, WorkerId
from shared.protocol.jobs import ClaimedJob, JobState
from shared.protocol.results import Result, Usage
from shared.store.access.key_store import KeyStore
from shared.store.batches.batches import MAX_LINES_PER_COMMIT, Batches
from shared.store.batches.files import FileQuota, StoredFiles
from shared.store.batches.records import BatchStatus

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
NUM_REQUESTS = 50_000
KEEP_S = 60


async def arrivals(pool: LargePool) -> None:
    """Enqueue and cancel jobs, without and with parked workers, suspect ones, and with a key."""
    await pool.meter.delete(pool.keys.idle)
    jobs = [await pool.put(one) for one in pool.versions[:CALLS]]
    await pool.renew(SHORT_LEASE_MS)
    jobs += [await pool.put(BASE) for _ in range(CALLS)]
    new_versions = [AdapterVersion(f"new{number}@1") for number in range(CALLS)]
    jobs += [await pool.put(version, is_suspect=True) for version in new_versions]
    key, _ = await KeyStore(pool.meter, pool.keys).create(RIGHTS, KEY_LIMITS)
    jobs += [await pool.put(BASE, key_id=key.id) for _ in range(CALLS)]
    await each(jobs, lambda job: pool.queue.cancel(job.id))


async def claims_of_own(pool: LargePool) -> None:
    """Claim jobs whose versions are resident on the worker."""
    cold, others = pool.versions[len(pool.hot) :], [f"b{n}@1" for n in range(len(pool.versions))]
    await _claim(pool, residents=[BASE])
    await _claim(pool, sequences=16, residents=cold[:8])
    await _claim(pool, sequences=BATCH, residents=cold[:512])
    await _claim(pool, sequences=16, residents=pool.versions)
    await _claim(pool, residents=others)


async def claims_of_foreign(pool: LargePool) -> None:
    """Claim jobs whose versions the worker would have to load or to steal."""
    limits = {"sequences": BATCH, "max_cold": 8}
    await _claim(pool, residents=[BASE], refused=pool.versions, **limits)
    await _claim(pool, residents=[BASE], refused=pool.hot, **limits)
    await _claim(pool, residents=[BASE], steal_ms=0, **limits)
    await _claim(pool, residents=pool.versions[-1:], **limits)


async def claims_in_vain(pool: LargePool) -> None:
    """Claim when the first jobs in the queue are overdue, or too large for the worker."""
    for _ in range(FEW):
        await each([BASE] * BATCH, lambda base: pool.put(base, deadline_ms=1))
        await _claim(pool, calls=1, residents=[BASE])
    larger = await pool.join(kv_tokens=10 * KV_TOKENS)
    jobs = [await pool.put(BASE, cost=5 * KV_TOKENS) for _ in range(4 * BATCH)]
    await _claim(pool, residents=[BASE])
    await each(jobs, lambda job: pool.queue.cancel(job.id))
    await pool.queue.leave(larger)


async def mixed_pool(pool: LargePool) -> None:
    """Work in a pool with a worker that doesn't serve the waiting jobs."""
    limited = await pool.join([BASE], serves=LIMITED)
    mine: dict[str, Any] = {"residents": [BASE], "serves": LIMITED}
    for _ in range(CALLS):
        await pool.claim(limited, max_cold=8, steal_ms=0, **mine)
    jobs = [await pool.put(BASE, embedding=EmbeddingParams()) for _ in range(4 * BATCH)]
    for _ in range(CALLS):
        await pool.claim(limited, **mine)
    jobs += [await pool.put(one) for one in pool.versions[:CALLS]]
    await each(jobs, lambda job: pool.queue.cancel(job.id))
    await pool.queue.leave(limited)


async def running(pool: LargePool) -> None:
    """Load, publish, beat, reconcile, finish and cancel for a busy worker."""
    worker, jobs = await pool.busy()
    epochs = {claimed.job.id: claimed.claim_epoch for claimed in jobs}
    loading = pool.versions[-8:]
    for cold in pool.versions[-CALLS:]:
        await pool.residency.start_load(worker, cold)
    for _ in range(CALLS):
        await pool.publish(worker, jobs, num_checkpoints=8)
        await pool.queue.beat(
            worker, lease_ms=LEASE_MS, info=worker_info(), loading=loading, known=epochs
        )
        await pool.queue.reconcile(worker, list(epochs), grace_ms=0)
    await each(jobs[:CALLS], lambda claimed: _finish(pool, worker, claimed))
    error = JobError(code=ErrorCode.CANCELLED, message="the job was cancelled")
    for claimed in jobs[CALLS : 2 * CALLS]:
        await pool.queue.cancel(claimed.job.id, error=error)
    await pool.queue.leave(worker)


async def followed(pool: LargePool) -> None:
    """Let clients come back, go away, and erase their jobs."""
    worker, jobs = await pool.busy()
    others = [ApiId(f"bench-other-{number}") for number in range(MAX_FOLLOWERS)]
    for claimed in jobs[:CALLS]:
        for api in others:
            await pool.queue.attach(claimed.job.id, api)
    await pool.publish(worker, jobs)
    await _front_ends_die(pool, jobs)
    for claimed in jobs[:CALLS]:
        for api in (*others, claimed.job.reply_to):
            await pool.queue.abandon(claimed.job.id, api, grace_ms=0)
    await each(jobs, lambda claimed: _finish(pool, worker, claimed))
    await each(jobs[:CALLS], lambda claimed: pool.queue.erase(claimed.job.id))
    await pool.meter.hset(pool.keys.counters, "retain_bytes", "0")  # type: ignore[misc]
    await pool.queue.retain()
    await pool.queue.leave(worker)


async def _front_ends_die(pool: LargePool, jobs: tuple[ClaimedJob, ...]) -> None:
    """Let front ends report, and sweeps abandon the jobs of dead ones."""
    for api in {*APIS, *(claimed.job.reply_to for claimed in jobs)}:
        await pool.queue.beat_api(api)
        await pool.meter.zincrby(pool.keys.apis, -DEAD_FOR_MS, api)
    for _ in range(CALLS):
        await pool.queue.reap()


async def given_back(pool: LargePool) -> None:
    """Return a worker's jobs to the queue: release, reconcile and leave."""
    for _ in range(FEW):
        worker, jobs = await pool.busy()
        await pool.publish(worker, jobs)
        await pool.queue.release(worker, [claimed.job.id for claimed in jobs[:RELEASED]])
        await pool.queue.reconcile(worker, [], grace_ms=0)
        await pool.queue.leave(worker)
        worker, jobs = await pool.busy()
        await pool.publish(worker, jobs)
        await pool.queue.leave(worker)


async def _claim(pool: LargePool, *, calls: int = CALLS, **arguments: Any) -> None:
    """Claim with a new worker, and release the claimed jobs after each claim."""
    worker = await pool.join(arguments.get("residents", ()))
    for _ in range(calls):
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


async def batches(pool: LargePool) -> None:
    """Run batches from their acceptance to their end, with lines spread over the whole batch."""
    store, stride = Batches(pool.meter, pool.keys), NUM_REQUESTS // MAX_LINES_PER_COMMIT
    for number in range(CALLS):
        batch = make_batch()
        await store.add(batch, keep_s=KEEP_S, max_tenant=2 * CALLS)
        turn = await store.take_turn()
        assert turn
        await store.begin(turn)
        await store.start(batch.id, turn.runner, num_requests=NUM_REQUESTS)
        committed = lines(
            *range(number % stride, NUM_REQUESTS, stride), parts=["1-answers", "1-failures"]
        )
        await store.commit(batch.id, turn.runner, committed)
        await store.release(turn)
        turn = await store.take_turn()
        assert turn
        completed = BatchStatus.COMPLETED
        await store.end(batch.id, turn.runner, completed, keep_s=KEEP_S, announces=False)
        await store.delete(batch)


async def files(pool: LargePool) -> None:
    """Reserve, store, delete and forget files."""
    store, quota = StoredFiles(pool.meter, pool.keys), FileQuota(max_files=99, max_bytes=99)
    for _ in range(CALLS):
        file = make_file()
        await store.reserve(
            file.id, file.tenant, file.num_bytes, quota=quota, until_s=file.expires_s
        )
        await store.complete(file)
        await store.delete(file.id)
        await store.forget(file.id)
