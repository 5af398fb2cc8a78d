"""Runs the pool, the load and the faults, and inspects the pool afterwards."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from ops.lab.chaos.checks.aftermath import inspect
from ops.lab.chaos.checks.ledger import ledger_sum
from ops.lab.chaos.checks.monitor import Monitor
from ops.lab.chaos.checks.timelines import read_logs, timeline_problems
from ops.lab.chaos.cluster.commands import BASE, adapter_sources
from ops.lab.chaos.cluster.pool import Pool
from ops.lab.chaos.faults.fault import FaultRecord, Scene, strike
from ops.lab.chaos.faults.kinds import KINDS, need_network
from ops.lab.chaos.load.fleet import Fleet
from ops.lab.chaos.load.requests import simulated_version
from ops.lab.chaos.load.workload import Workload
from ops.lab.chaos.options import Options
from ops.lab.chaos.report.run_report import Findings
from ops.lab.chaos.schedule import PlannedFault, plan_faults
from shared.cancel_tasks import cancel_tasks

NUM_CLIENT_PROCESSES = 2
CLIENTS_PER_PROCESS = 10_000
"""Each client process numbers its clients from its own multiple of this number.

Therefore no two clients of a run have the same number."""
LENGTHS = (30, 200)
"""Minimum and maximum number of tokens of an answer."""
REST_S = 1.0
"""Minimum time between a recovery and the next fault, in seconds."""
CHECK_S = 0.5

Show = Callable[[str], None]
"""Function that shows one line of progress."""


async def run_chaos(options: Options, folder: Path, show: Show) -> Findings:
    """Run the pool under load, inject all planned faults, and return what was observed.

    Args:
        options: settings of the run.
        folder: folder of data, logs and records.
        show: shows the progress.

    Raises:
        ClientsFailed: a client process ended early.
        NotInTime: the pool didn't become ready.
        SettingsError: a program is missing.
    """
    pool = await Pool.start(options, folder, has_network=need_network(options.faults))
    show("the pool is ready")
    try:
        return await _run_with(pool, folder, show)
    finally:
        await pool.stop()


async def _run_with(pool: Pool, folder: Path, show: Show) -> Findings:
    options = pool.options
    fleet = Fleet(_workloads(pool, folder), folder)
    ledger_before = await ledger_sum(pool.redis, pool.keys)
    monitor = Monitor(pool)
    sampling = asyncio.create_task(monitor.run())
    try:
        await fleet.start()
        started_s = time.monotonic()
        faults = await _strike_all(
            Scene(pool=pool, fleet=fleet, rng=Random(f"{options.seed}:faults")), show
        )
        await _sleep_until(started_s + 60 * options.minutes, fleet)
        show("no further requests")
        await fleet.stop()
        ended_s = time.monotonic()
        show("inspecting the pool")
        await cancel_tasks(sampling)
        await monitor.sample()
        await monitor.finish()
        aftermath = await inspect(pool)
    finally:
        await cancel_tasks(sampling)
        fleet.kill()
    return Findings(
        started_s=started_s,
        ended_s=ended_s,
        faults=faults,
        records=fleet.records(),
        ends=[end for process in pool.processes for end in process.ends],
        aftermath=aftermath,
        jobs=monitor.jobs,
        num_diverged=monitor.num_diverged,
        cancelled=monitor.cancelled,
        timeline_problems=timeline_problems(
            monitor.timelines,
            monitor.states,
            read_logs([worker.log_text() for worker in pool.workers]),
            {"retried": aftermath.retried, "released": aftermath.released},
        ),
        ledger_before=ledger_before,
    )


def _workloads(pool: Pool, folder: Path) -> list[Workload]:
    options = pool.options
    sources = {BASE: BASE, **adapter_sources(options)}
    versions = {name: simulated_version(name, source) for name, source in sources.items()}
    share, rest = divmod(options.streams, NUM_CLIENT_PROCESSES)
    return [
        Workload(
            urls=[api.url for api in pool.apis],
            seed=options.seed,
            first_client=number * CLIENTS_PER_PROCESS,
            num_clients=share + (number < rest),
            versions=versions,
            lengths=LENGTHS,
            records=str(folder / f"records-{number}.jsonl"),
        )
        for number in range(NUM_CLIENT_PROCESSES)
    ]


async def _strike_all(scene: Scene, show: Show) -> list[FaultRecord]:
    """Inject all faults of the plan, one after another."""
    options = scene.pool.options
    plan = plan_faults(
        options.faults, each=options.each, total_s=60 * options.minutes, seed=options.seed
    )
    started_s = time.monotonic()
    faults: list[FaultRecord] = []
    for planned in plan:
        await _sleep_until(started_s + planned.at_s, scene.fleet)
        fault = await strike(KINDS[planned.kind](scene), scene.rng)
        faults.append(fault)
        show(_line(fault, started_s, planned, plan))
        await asyncio.sleep(REST_S)
    return faults


def _line(
    fault: FaultRecord, started_s: float, planned: PlannedFault, plan: Sequence[PlannedFault]
) -> str:
    number = plan.index(planned) + 1
    took_s = (fault.recovered_s or time.monotonic()) - fault.injected_s
    found = fault.error or fault.evidence
    at_s = fault.injected_s - started_s
    return (
        f"{number}/{len(plan)} at {at_s:.0f} s: {fault.kind}, {fault.target}: "
        f"{found} ({took_s:.1f} s)"
    )


async def _sleep_until(time_s: float, fleet: Fleet) -> None:
    """Sleep until a time of the monotonic clock, and watch the client processes meanwhile."""
    fleet.check()
    while (left_s := time_s - time.monotonic()) > 0:
        await asyncio.sleep(min(left_s, CHECK_S))
        fleet.check()
