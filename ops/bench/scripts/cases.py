"""Situations in which the scripts are measured; each function makes some, and cleans up."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from ops.bench.compare.queue_latency import LEASE_MS
from ops.bench.scripts.costs import Call, Meter
from ops.bench.scripts.job_cases import (
    CALLS,
    FEW,
    arrivals,
    claims_in_vain,
    claims_of_foreign,
    claims_of_own,
    given_back,
    running,
)
from ops.bench.scripts.large_pool import (
    BASE,
    SHORT_LEASE_MS,
    LargePool,
    Sizes,
    adapter,
    base_model,
    each,
    version,
)
from shared.errors import LeaseLost
from shared.protocol.ids import AdapterVersion, InspectionId
from shared.store.inspections import Findings, Inspection, Inspections
from shared.store.queue import VERSIONS_AT_ONCE
from shared.store.scripts import Scripts

SILENT = 50
"""Workers: as many as one sweep looks at."""
OVERDUE = 320
SWEPT = 128
PREVIOUS = 4
GIVES_UP = "reap", "hand_on", "forget_worker"
DEATHS = 9
"""Three jobs that kill three workers each bring their version into quarantine."""
SPARE = 10**6
"""Numbers from here on belong to adapters that have no jobs."""

Case = Callable[[LargePool], Awaitable[None]]


async def measure_scripts(url: str, sizes: Sizes) -> list[Call]:
    """Every call in every situation, in the Redis at `url`, which nobody else uses."""
    meter = Meter(url)
    try:
        await meter.load_scripts()
        pool = LargePool(meter, sizes)
        await pool.fill()
        for case in CASES:
            await pool.renew(SHORT_LEASE_MS)
            await case(pool)
    finally:
        await meter.aclose()
    return meter.calls


async def _residents(pool: LargePool) -> None:
    with pool.meter.measuring("a new worker"):
        joined = [await pool.join() for _ in range(CALLS)]
    await each(joined, pool.queue.leave)
    for _ in range(2):
        wid, half = await pool.join(), len(pool.versions) // 2
        with pool.meter.measuring(f"{VERSIONS_AT_ONCE} added"):
            await pool.queue.set_residents(wid, add=pool.versions)
        with pool.meter.measuring(f"{VERSIONS_AT_ONCE} removed"):
            await pool.queue.set_residents(wid, remove=pool.versions[half:])
        await pool.queue.set_residents(wid, add=pool.versions[half:])
        with pool.meter.measuring(f"left holding {len(pool.versions):,}", "forget_worker"):
            await pool.queue.leave(wid)


async def _shrink(pool: LargePool) -> None:
    copies = dict.fromkeys(pool.hot[:32], 0)
    wid = await pool.join(list(copies))
    for _ in range(CALLS):
        with pool.meter.measuring("32 copies, 16 other holders each"):
            await pool.queue.shrink(wid, copies, due=(), steal_ms=LEASE_MS)
        with pool.meter.measuring("32 copies taken back"):
            await pool.queue.shrink(wid, copies, due=copies, steal_ms=LEASE_MS)
        await pool.queue.set_residents(wid, add=list(copies))
    await pool.queue.leave(wid)


async def _sweeps(pool: LargePool) -> None:
    with pool.meter.measuring("nothing to do", "reap", "expire", "quarantine"):
        for _ in range(CALLS):
            await pool.queue.reap()
    for _ in range(FEW):
        silent = [await pool.join([BASE]) for _ in range(SILENT)]
        await each(silent, lambda wid: pool.beat(wid, 0))
        await pool.renew(LEASE_MS)  # longer than any lease should be, so these are cut short, too
        with pool.meter.measuring(f"{SILENT} silent workers, {SILENT} leases ahead", *GIVES_UP):
            await pool.queue.reap()
        with pool.meter.measuring(f"{SILENT} workers to give up, {SILENT} leases ahead", *GIVES_UP):
            await pool.queue.reap()
        await pool.queue.reap()


async def _deaths(pool: LargePool) -> None:
    for _ in range(FEW):
        wid, jobs = await pool.busy()
        await pool.publish(wid, jobs)
        await pool.beat(wid, 0)
        await pool.queue.reap()
        with pool.meter.measuring("given up with 64 jobs, tokens shown", *GIVES_UP):
            await pool.queue.reap()
        with pool.meter.measuring("speaks after it lost 64 jobs"), suppress(LeaseLost):
            await pool.beat(wid, LEASE_MS)


async def _overdue(pool: LargePool) -> None:
    some = pool.versions[:OVERDUE]
    await each(some, lambda one: pool.put(one, priority=9, deadline_ms=1))
    with pool.meter.measuring(f"{len(some)} overdue jobs", "expire"):
        await pool.queue.reap()
    other = LargePool(pool.meter, pool.sizes)
    await each(pool.versions[: 4 * OVERDUE], lambda one: other.put(one, deadline_ms=1))
    with pool.meter.measuring("all jobs are overdue", "expire"):
        await other.queue.reap()


async def _quarantine(pool: LargePool) -> None:
    await pool.load_adapter(SPARE)
    poison, num_waiting = version(SPARE), pool.sizes.waiting // 20
    await each([poison] * 3, pool.put)
    await each([poison] * num_waiting, pool.put)
    for _ in range(DEATHS - 1):
        await _die(pool, poison)
        await pool.queue.reap()
    await _die(pool, poison)
    with pool.meter.measuring(f"{num_waiting:,} jobs of a version that kills", "quarantine"):
        await pool.queue.reap()
        await pool.queue.reap()


async def _die(pool: LargePool, poison: AdapterVersion) -> None:
    wid = await pool.join()
    await pool.claim(wid, sequences=1, residents=[poison])
    await pool.beat(wid, 0)
    await pool.queue.reap()


async def _names(pool: LargePool) -> None:
    numbers, registry = range(SPARE + 1, SPARE + 1 + CALLS), pool.registry
    for number in numbers:
        with pool.meter.measuring("a worker starts with it"):
            await registry.add_adapter(adapter(number))
        for round_ in range(1, PREVIOUS + 1):
            await registry.load_adapter(adapter(number, round_), replace=True)
        with pool.meter.measuring(f"replaced, {PREVIOUS} previous versions"):
            await registry.load_adapter(adapter(number, PREVIOUS + 1), replace=True)
        with pool.meter.measuring(f"{PREVIOUS} previous versions"):
            await registry.roll_back_adapter(adapter(number).name)
            await registry.unload_adapter(adapter(number).name)


async def _retired(pool: LargePool) -> None:
    numbers = range(2 * SPARE, 2 * SPARE + 3 * SWEPT)
    await each(numbers, pool.load_adapter)
    await each(numbers, lambda number: pool.registry.unload_adapter(adapter(number).name))
    for _ in range(3):
        await asyncio.sleep(1)  # it looks once a second
        with pool.meter.measuring(f"{SWEPT} retired versions"):
            await pool.registry.sweep()


async def _small(pool: LargePool) -> None:
    inspections, scripts = Inspections(pool.meter, pool.keys), Scripts(pool.meter, pool.keys)
    for number in range(CALLS):
        asked = InspectionId(str(number))
        with pool.meter.measuring("one"):
            await inspections.ask(pool.workers[0], asked, Inspection(name="a", source="/a"))
            await inspections.take(asked)
            await inspections.answer(asked, Findings())
            await scripts.run("barrier")
        with pool.meter.measuring("the same base"):
            await pool.registry.set_base(base_model("1"))


async def _another_base(pool: LargePool) -> None:
    """The last case, as it needs a pool without workers."""
    await each(pool.workers, pool.queue.leave)
    with pool.meter.measuring(f"another base, {len(pool.versions):,} adapters"):
        await pool.registry.set_base(base_model("2"))


CASES: tuple[Case, ...] = (
    arrivals,
    claims_of_own,
    claims_of_foreign,
    claims_in_vain,
    running,
    given_back,
    _residents,
    _shrink,
    _sweeps,
    _deaths,
    _overdue,
    _quarantine,
    _names,
    _retired,
    _small,
    _another_base,
)
