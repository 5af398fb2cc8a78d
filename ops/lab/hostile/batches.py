"""Runs batches of many tenants, first without and then with a hostile one.

The command is `python -m ops.lab.hostile.batches`. It exits with status 1 if the hostile tenant
slowed the others down, if a result was lost or doubled, or if data was left behind. With --quick,
it doesn't compare times, because one SIGKILL takes longer than all batches.
"""

import asyncio
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from ops.lab.hostile.batch_inputs import hostile_kinds
from ops.lab.hostile.batching.run import HOSTILE, Report, Run, RunResult, Sizes
from ops.lab.hostile.pool import hostile_pool
from ops.lab.hostile.results import conclude
from ops.lab.hostile.source import flaky_source
from ops.lab.options import RESULTS, ResultsFolder
from ops.terminal import progress

MAX_RATIO = 1.5
"""Maximum ratio of the other tenants' time with a hostile tenant to their time without one."""
LOG_LINES_PER_BATCH = 20
"""Maximum number of lines that control processes may log per batch. A loop would log more."""
QUICK = Sizes(tenants=4, batches=24, lines=60, kills=1, waits=False)
"""Sizes of a run with --quick. Control processes are killed once, before the batches end."""
HOSTILE_LINES = 12


def main(
    tenants: Annotated[int, typer.Option(help="Tenants, one of them hostile.")] = 20,
    batches: Annotated[int, typer.Option(help="Batches of all tenants.")] = 1000,
    lines: Annotated[int, typer.Option(help="Lines of each batch.")] = 12,
    kills: Annotated[int, typer.Option(help="SIGKILLs of control in each run.")] = 10,
    quick: Annotated[bool, typer.Option("--quick", help="A short run, for CI.")] = False,
    results: ResultsFolder = RESULTS,
) -> None:
    """Compare the batches of many tenants without and with a hostile one."""
    sizes = Sizes(tenants=tenants, batches=batches, lines=lines, kills=kills, waits=True)
    sizes = QUICK if quick else sizes
    console = Console()
    with progress(console) as shown:
        task = shown.add_task("starting", total=1)

        def report(what: str, done: int, total: int) -> None:
            shown.update(task, description=what, completed=done, total=max(1, total))

        without = _run(sizes, report, has_hostile=False)
        beside = _run(sizes, report, has_hostile=True)
    ratio = beside.seconds / without.seconds
    faults = _faults(without, beside, ratio, sizes, compares=not quick)
    figures = {"sizes": asdict(sizes), "without": without, "beside": beside, "ratio": ratio}
    conclude(
        *(console, "hostile-batches", {**figures, "faults": faults}),
        _lines(without, beside, ratio, faults),
        folder=None if quick else results,
        has_failed=bool(faults),
    )


def _run(sizes: Sizes, report: Report, *, has_hostile: bool) -> RunResult:
    report("starting", 0, 1)
    tenants = [f"tenant-{number}" for number in range(1, sizes.tenants)]
    kinds = hostile_kinds(HOSTILE_LINES) if has_hostile else []
    with (
        TemporaryDirectory(prefix="lorikeet-hostile-") as folder,
        flaky_source() as source,
        hostile_pool(Path(folder) / "pool", [*tenants, HOSTILE], source.url) as pool,
    ):
        return asyncio.run(Run(pool, source, sizes, kinds, report).run())


def _faults(
    without: RunResult, beside: RunResult, ratio: float, sizes: Sizes, *, compares: bool
) -> list[str]:
    faults = [*without.faults, *beside.faults]
    if compares and ratio > MAX_RATIO:
        faults.append(f"the others' batches took {ratio:.2f} times as long")
    for run in (without, beside):
        if run.log_lines > LOG_LINES_PER_BATCH * sizes.batches:
            faults.append(f"the control processes logged {run.log_lines} lines")
        if run.num_kills < sizes.kills:
            faults.append(f"control was killed {run.num_kills} times only")
    return faults


def _lines(without: RunResult, beside: RunResult, ratio: float, faults: list[str]) -> list[str]:
    return [
        f"{without.num_lines:,} lines of the other tenants: {without.seconds:.1f} s without and "
        f"{beside.seconds:.1f} s beside the hostile tenant, {ratio:.2f} times as long",
        f"control was killed {without.num_kills} and {beside.num_kills} times",
        f"batches of the others: {without.statuses}; {beside.statuses}",
        f"hostile batches: {beside.hostile_statuses} after {beside.hostile_seconds:.1f} s; errors: "
        f"{beside.hostile_errors}; the source refused {beside.refusals_of_source} times",
        f"Redis: {without.before.redis_bytes:,} bytes before, {without.after.redis_bytes:,} after; "
        f"{beside.before.redis_bytes:,} before, {beside.after.redis_bytes:,} after; objects: "
        f"{without.after.num_objects}; {beside.after.num_objects}",
        *[f"fault: {fault}" for fault in faults[:20]],
        f"{len(faults)} faults" if faults else "no faults",
    ]


if __name__ == "__main__":
    typer.run(main)
