"""Situations of the scripts that handle workers, sweeps, adapters and the base model.

Each case sets up situations in the pool and measures script calls in them. All cases except
`another_base` then restore the pool.
"""

import asyncio
from contextlib import suppress

from job_cases import (
    CALLS,
    FEW,
)
from large_pool import (
    BASE,
    LargePool,
    adapter,
    base_model,
    each,
    version,
)
from synthetic_pool import LEASE_MS

from shared.errors import LeaseLost
from shared.protocol.ids import AdapterVersion, InspectionId, UploadId
from shared.store.adapters.inspections import Findings, Inspection, Inspections
from shared.store.adapters.residency import VERSIONS_PER_CALL
from shared.store.adapters.uploads import Uploads
from shared.store.redis.scripts import Scripts

SILENT = 50
"""Number of silent workers. One sweep handles at most this many."""
OVERDUE = 320
SWEPT = 128
PREVIOUS = 4
GIVE_UP_SCRIPTS = "reap", "hand_on", "forget_worker"
DEATHS = 9
"""Number of worker deaths that quarantine a version. Three jobs each kill three workers."""
PIECE = bytes(100_000)
"""Piece of an adapter that a client uploads."""
FIRST_IDLE = 10**6
"""Number of the first idle adapter. In the filled pool, this adapter and all adapters with higher
numbers have no jobs."""


async def residents(pool: LargePool) -> None:
    """Measure the calls of workers that join, change their resident versions, and leave."""
    with pool.meter.measuring("a new worker"):
        joined = [await pool.join() for _ in range(CALLS)]
    await each(joined, pool.queue.leave)
    for _ in range(2):
        worker, half = await pool.join(), len(pool.versions) // 2
        with pool.meter.measuring(f"{VERSIONS_PER_CALL} added"):
            await pool.residency.set_residents(worker, add=pool.versions)
        with pool.meter.measuring(f"{VERSIONS_PER_CALL} removed"):
            await pool.residency.set_residents(worker, remove=pool.versions[half:])
        await pool.residency.set_residents(worker, add=pool.versions[half:])
        with pool.meter.measuring(f"left holding {len(pool.versions):,}", "forget_worker"):
            await pool.queue.leave(worker)


async def shrinking(pool: LargePool) -> None:
    """Measure how a worker releases copies of versions that other workers also hold."""
    copies = dict.fromkeys(pool.hot[:32], 0)
    worker = await pool.join(list(copies))
    for _ in range(CALLS):
        with pool.meter.measuring("32 copies, 16 other holders each"):
            await pool.residency.shrink(worker, copies, due=(), steal_ms=LEASE_MS)
        with pool.meter.measuring("32 copies taken back"):
            await pool.residency.shrink(worker, copies, due=copies, steal_ms=LEASE_MS)
        await pool.residency.set_residents(worker, add=list(copies))
    await pool.queue.leave(worker)


async def sweeps(pool: LargePool) -> None:
    """Measure sweeps of the pool without and with silent workers."""
    with pool.meter.measuring("nothing to do", "reap", "expire", "quarantine"):
        for _ in range(CALLS):
            await pool.queue.reap()
    for _ in range(FEW):
        silent = [await pool.join([BASE]) for _ in range(SILENT)]
        await each(silent, lambda worker: pool.beat(worker, 0))
        await pool.renew(LEASE_MS)  # longer than the limit, so the sweep shortens these leases too
        with pool.meter.measuring(
            f"{SILENT} silent workers, {SILENT} leases too long", *GIVE_UP_SCRIPTS
        ):
            await pool.queue.reap()
        with pool.meter.measuring(
            f"{SILENT} workers to give up, {SILENT} leases too long", *GIVE_UP_SCRIPTS
        ):
            await pool.queue.reap()
        await pool.queue.reap()


async def deaths(pool: LargePool) -> None:
    """Measure how busy workers are declared dead, and how their late heartbeats are rejected."""
    for _ in range(FEW):
        worker, jobs = await pool.busy()
        await pool.publish(worker, jobs)
        await pool.beat(worker, 0)
        await pool.queue.reap()
        with pool.meter.measuring("given up with 64 jobs, tokens published", *GIVE_UP_SCRIPTS):
            await pool.queue.reap()
        with pool.meter.measuring("heartbeat after losing 64 jobs"), suppress(LeaseLost):
            await pool.beat(worker, LEASE_MS)


async def overdue(pool: LargePool) -> None:
    """Measure the expiry of overdue jobs."""
    some = pool.versions[:OVERDUE]
    await each(some, lambda one: pool.put(one, priority=9, deadline_ms=1))
    with pool.meter.measuring(f"{len(some)} overdue jobs", "expire"):
        await pool.queue.reap()
    other = LargePool(pool.meter, pool.sizes)
    await each(pool.versions[: 4 * OVERDUE], lambda one: other.put(one, deadline_ms=1))
    with pool.meter.measuring("all jobs are overdue", "expire"):
        await other.queue.reap()


async def quarantine(pool: LargePool) -> None:
    """Measure the quarantine of a version that kills its workers and has many waiting jobs."""
    await pool.load_adapter(FIRST_IDLE)
    poison, num_waiting = version(FIRST_IDLE), pool.sizes.waiting // 20
    await each([poison] * 3, pool.put)
    await each([poison] * num_waiting, pool.put)
    for _ in range(DEATHS - 1):
        await _die(pool, poison)
        await pool.queue.reap()
    await _die(pool, poison)
    with pool.meter.measuring(f"{num_waiting:,} jobs of a version that kills", "quarantine"):
        await pool.queue.reap()
        await pool.queue.reap()
    with pool.meter.measuring("release from quarantine", "release_quarantine"):
        await pool.registry.release_quarantined(after_ms=0)


async def _die(pool: LargePool, poison: AdapterVersion) -> None:
    worker = await pool.join()
    await pool.claim(worker, sequences=1, residents=[poison])
    await pool.beat(worker, 0)
    await pool.queue.reap()


async def names(pool: LargePool) -> None:
    """Measure adding, replacing, rolling back and unloading adapters."""
    numbers, registry = range(FIRST_IDLE + 1, FIRST_IDLE + 1 + CALLS), pool.registry
    for number in numbers:
        with pool.meter.measuring("a worker starts with it"):
            await registry.add_adapter(adapter(number))
        for generation in range(1, PREVIOUS + 1):
            await registry.load_adapter(adapter(number, generation), replace=True)
        with pool.meter.measuring(f"replaced, {PREVIOUS} previous versions"):
            await registry.load_adapter(adapter(number, PREVIOUS + 1), replace=True)
        with pool.meter.measuring(f"{PREVIOUS} previous versions"):
            await registry.roll_back_adapter(adapter(number).name)
            await registry.unload_adapter(adapter(number).name)


async def retired(pool: LargePool) -> None:
    """Measure sweeps that remove retired versions."""
    numbers = range(2 * FIRST_IDLE, 2 * FIRST_IDLE + 3 * SWEPT)
    await each(numbers, pool.load_adapter)
    await each(numbers, lambda number: pool.registry.unload_adapter(adapter(number).name))
    for _ in range(3):
        await asyncio.sleep(1)  # sweeps less than a second apart do nothing
        with pool.meter.measuring(f"{SWEPT} retired versions"):
            await pool.registry.forget_unused()


async def small_scripts(pool: LargePool) -> None:
    """Measure the scripts whose cost doesn't depend on the size of the pool."""
    inspections, scripts = Inspections(pool.meter, pool.keys), Scripts(pool.meter, pool.keys)
    uploads = Uploads(pool.meter, pool.keys)
    for number in range(CALLS):
        asked = InspectionId(str(number))
        with pool.meter.measuring("one"):
            await inspections.ask(pool.workers[0], asked, Inspection(name="a", source="/a"))
            await inspections.take(asked)
            await inspections.answer(asked, Findings())
            await scripts.run("durability_barrier")
            upload = UploadId(str(number))
            await uploads.append(upload, "0", PIECE, tenant="red", num_left=0, ttl_ms=1000)
            await uploads.discard(upload)
        with pool.meter.measuring("the same base"):
            await pool.registry.set_base(base_model("1"))


async def another_base(pool: LargePool) -> None:
    """Measure a change of the base model, which needs a pool without workers."""
    await each(pool.workers, pool.queue.leave)
    with pool.meter.measuring(f"another base, {len(pool.versions):,} adapters"):
        await pool.registry.set_base(base_model("2"))
