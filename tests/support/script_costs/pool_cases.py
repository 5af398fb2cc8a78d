"""Situations of the scripts that handle workers, sweeps, adapters and the base model.

Each case brings about situations in the pool. All except `another_base` then restore the pool.
"""

import asyncio
from contextlib import suppress

from job_cases import CALLS, FEW
from large_pool import (
    BASE,
    LEASE_MS,
    WAITING,
    LargePool,
    adapter,
    base_model,
    each,
    version,
)

from shared.errors import LeaseLost
from shared.protocol.ids import InspectionId, JobId, UploadId
from shared.store.adapters.candidates import Candidates
from shared.store.adapters.inspections import Findings, Inspection, Inspections
from shared.store.adapters.pins import Pins
from shared.store.adapters.shadows import PairReport, ShadowPair, Shadows
from shared.store.adapters.share import CandidateMode
from shared.store.adapters.uploads import Uploads
from shared.store.redis.scripts import Scripts

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
    uploads = Uploads(pool.meter, pool.keys)
    for number in range(CALLS):
        asked, upload = InspectionId(str(number)), UploadId(str(number))
        await inspections.ask(pool.workers[0], asked, Inspection(name="a", source="/a"))
        await inspections.take(asked)
        await inspections.answer(asked, Findings())
        await scripts.run("durability_barrier")
        await uploads.append(upload, "0", PIECE, tenant="red", num_left=0, ttl_ms=1000)
        await uploads.discard(upload)
        await pool.registry.set_base(base_model("1"))


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
