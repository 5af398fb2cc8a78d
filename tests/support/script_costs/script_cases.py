"""Situations of the scripts: jobs on their path, workers, sweeps, adapters, batches and files.

Each case brings about situations in the pool. All except `another_base` then restore the pool.
"""

import asyncio
from contextlib import suppress
from typing import Any

from batch_records import lines, make_batch, make_file
from large_pool import (
    APIS,
    BASE,
    BATCH,
    KV_TOKENS,
    LEASE_MS,
    SHORT_LEASE_MS,
    WAITING,
    LargePool,
    adapter,
    base_model,
    each,
    version,
    worker_info,
)

from shared.errors import ErrorCode, JobError, LeaseLost
from shared.protocol.access.rights import Access, KeyLimits, Scope
from shared.protocol.capabilities import Capabilities
from shared.protocol.embeddings import EmbeddingParams
from shared.protocol.events import End
from shared.protocol.ids import AdapterVersion, ApiId, InspectionId, JobId, UploadId, WorkerId
from shared.protocol.jobs import ClaimedJob, JobState
from shared.protocol.results import Result, Usage
from shared.protocol.workers import WorkerMode
from shared.store.access.key_store import KeyStore
from shared.store.adapters.adapter_pauses import AdapterPauses
from shared.store.adapters.candidates import CandidateMode, Candidates
from shared.store.adapters.inspections import Findings, Inspection, Inspections
from shared.store.adapters.pins import Pins
from shared.store.adapters.shadows import PairReport, ShadowPair, Shadows
from shared.store.adapters.uploads import Uploads
from shared.store.batches.batches import MAX_LINES_PER_COMMIT, Batches
from shared.store.batches.files import FileQuota, StoredFiles
from shared.store.batches.records import BatchStatus
from shared.store.jobs.pauses import Pauses
from shared.store.jobs.worker_modes import WorkerModes
from shared.store.processes import Processes, ProcessKind
from shared.store.redis.scripts import Scripts

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
RECORDS = 200


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


SILENT = 50
"""Number of silent workers. One sweep handles at most this many."""
OVERDUE = 320
SWEPT = 128
PREVIOUS = 4
DEATHS = 9
"""Number of worker deaths that quarantine a version. Three jobs each kill three workers."""
PIECE = bytes(100_000)
"""Piece of an adapter that a client uploads."""
FIRST_IDLE = 10**6
"""Number of the first idle adapter. In the filled pool, this adapter and all adapters with higher
numbers have no jobs."""
TRIED = 3 * FIRST_IDLE
"""Number of the adapter whose versions are tried out."""
BY = "operator"


async def residents(pool: LargePool) -> None:
    """Let workers join, change their resident versions, and leave while they hold many."""
    await each([await pool.join() for _ in range(CALLS)], pool.queue.leave)
    for _ in range(2):
        worker, half = await pool.join(), len(pool.versions) // 2
        await pool.residency.set_residents(worker, add=pool.versions)
        await pool.residency.set_residents(worker, remove=pool.versions[half:])
        await pool.residency.set_residents(worker, add=pool.versions[half:])
        await pool.queue.leave(worker)


async def shrinking(pool: LargePool) -> None:
    """Release copies of versions that 16 other workers hold, and take them back."""
    copies = dict.fromkeys(pool.hot[:32], 0)
    worker = await pool.join(list(copies))
    for _ in range(CALLS):
        await pool.residency.shrink(worker, copies, due=(), steal_ms=LEASE_MS)
        await pool.residency.shrink(worker, copies, due=copies, steal_ms=LEASE_MS)
        await pool.residency.set_residents(worker, add=list(copies))
    await pool.queue.leave(worker)


async def sweeps(pool: LargePool) -> None:
    """Sweep the pool without and with silent workers."""
    for _ in range(CALLS):
        await pool.queue.reap()
    for _ in range(FEW):
        silent = [await pool.join([BASE]) for _ in range(SILENT)]
        await each(silent, lambda worker: pool.beat(worker, 0))
        await pool.renew(LEASE_MS)  # longer than the limit, so the sweep shortens these leases too
        for _ in range(3):  # the silent workers are found, and given up
            await pool.queue.reap()


async def deaths(pool: LargePool) -> None:
    """Declare busy workers dead, and reject their late heartbeats."""
    for _ in range(FEW):
        worker, jobs = await pool.busy()
        await pool.publish(worker, jobs)
        await pool.beat(worker, 0)
        for _ in range(2):
            await pool.queue.reap()
        with suppress(LeaseLost):
            await pool.beat(worker, LEASE_MS)


async def overdue(pool: LargePool) -> None:
    """Let jobs expire: some of the pool's, and all of another one's."""
    await each(pool.versions[:OVERDUE], lambda one: pool.put(one, priority=9, deadline_ms=1))
    await pool.queue.reap()
    other = LargePool(pool.meter)
    await each(pool.versions[: 4 * OVERDUE], lambda one: other.put(one, deadline_ms=1))
    await other.queue.reap()


async def quarantine(pool: LargePool) -> None:
    """Quarantine a version that kills its workers and has many waiting jobs."""
    await pool.load_adapter(FIRST_IDLE)
    poison = version(FIRST_IDLE)
    await each([poison] * (3 + WAITING // 20), pool.put)
    for _ in range(DEATHS):
        worker = await pool.join()
        await pool.claim(worker, sequences=1, residents=[poison])
        await pool.beat(worker, 0)
        for _ in range(2):
            await pool.queue.reap()
    await pool.queue.reap()
    await pool.registry.release_quarantined(after_ms=0)


async def names(pool: LargePool) -> None:
    """Add, replace, roll back and unload adapters that keep all previous versions."""
    registry = pool.registry
    for number in range(FIRST_IDLE + 1, FIRST_IDLE + 1 + CALLS):
        await registry.add_adapter(adapter(number))
        for generation in range(1, PREVIOUS + 2):
            await registry.load_adapter(adapter(number, generation), replace=True)
        await registry.roll_back_adapter(adapter(number).name)
        await registry.unload_adapter(adapter(number).name)


async def retired(pool: LargePool) -> None:
    numbers = range(2 * FIRST_IDLE, 2 * FIRST_IDLE + 3 * SWEPT)
    await each(numbers, pool.load_adapter)
    await each(numbers, lambda number: pool.registry.unload_adapter(adapter(number).name))
    for _ in range(3):
        await asyncio.sleep(1)  # sweeps less than a second apart do nothing
        await pool.registry.forget_unused()


async def small_scripts(pool: LargePool) -> None:
    """Run the scripts whose cost doesn't depend on the size of the pool."""
    inspections, scripts = Inspections(pool.meter, pool.keys), Scripts(pool.meter, pool.keys)
    uploads, pauses = Uploads(pool.meter, pool.keys), Pauses(pool.meter, pool.keys)
    processes = Processes(pool.meter, pool.keys)
    for number in range(CALLS):
        asked, upload = InspectionId(str(number)), UploadId(str(number))
        await inspections.ask(pool.workers[0], asked, Inspection(name="a", source="/a"))
        await inspections.take(asked)
        await inspections.answer(asked, Findings())
        await scripts.run("durability_barrier")
        await uploads.append(upload, "0", PIECE, tenant="red", num_left=0, ttl_ms=1000)
        await uploads.discard(upload)
        await pool.registry.set_base(base_model("1"))
        await pauses.begin(by=BY)
        await pauses.end(by=BY)
        await processes.report(ProcessKind.CONTROL, str(number))
        await processes.end(ProcessKind.CONTROL, str(number))
        await processes.record_outage(1)
        await pool.residency.record_failed_load(pool.workers[0], pool.versions[number], "why")


async def operators_pauses(pool: LargePool) -> None:
    """Pause and resume workers, and adapters with waiting jobs of several versions."""
    modes = WorkerModes(pool.meter, pool.keys)
    pauses = AdapterPauses(pool.meter, pool.keys)
    limited = await pool.join([BASE], serves=LIMITED)
    for worker in (*pool.workers[:CALLS], limited):
        for mode in (WorkerMode.DRAINING, WorkerMode.SERVING):
            await modes.set(worker, mode, by=BY)
    await pool.queue.leave(limited)
    for number in range(CALLS):
        adapter_name = adapter(number).name
        await pauses.set(adapter_name, is_paused=True, by=BY)
        await pauses.set(adapter_name, is_paused=False, by=BY)


async def many_records(pool: LargePool) -> None:
    """Delete records of unanswered jobs that need too much memory, and forget expired ones."""
    for limit in ("unanswered_bytes", "unanswered_days"):
        jobs = [await pool.put(BASE) for _ in range(RECORDS)]
        await each(jobs, lambda job: pool.queue.cancel(job.id))
        await pool.meter.hset(pool.keys.counters, limit, "0")  # type: ignore[misc]
        records = [pool.keys.record(job.id) for job in jobs]
        if limit == "unanswered_days":
            await pool.meter.hdel(pool.keys.counters, "unanswered_bytes")  # type: ignore[misc]
            await pool.meter.delete(*records)
        await pool.queue.reap()


async def versions(pool: LargePool) -> None:
    """Try candidates from their first request to their promotion, and pin their adapter."""
    registry, name = pool.registry, adapter(TRIED).name
    candidates, shadows = Candidates(pool.meter, pool.keys), Shadows(pool.meter, pool.keys)
    pins = Pins(pool.meter, pool.keys)
    for generation in range(PREVIOUS + 1):
        await registry.load_adapter(adapter(TRIED, generation), replace=True)
    for call in range(CALLS):
        tried = adapter(TRIED, PREVIOUS + 1 + call)
        await registry.add_candidate(tried, keep_versions=PREVIOUS, by=BY)
        await candidates.set(name, None, mode=CandidateMode.SHADOW, percent=5, by=BY)
        await pins.set(name, 1 + call % 2, by=BY)
        pair = ShadowPair(original=JobId(f"o{call}"), copy=JobId(f"c{call}"))
        await shadows.add(pair)
        report = PairReport(original=pair.original, copy=pair.copy, similarity=0.5)
        await shadows.record(name, tried.version, report)
        await candidates.promote(name, by=BY)
    await registry.unload_adapter(name)


async def another_base(pool: LargePool) -> None:
    """Change the base model, which needs a pool without workers."""
    await each(pool.workers, pool.queue.leave)
    await pool.registry.set_base(base_model("2"))
