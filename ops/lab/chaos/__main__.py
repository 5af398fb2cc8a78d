"""`make chaos`: runs a pool under load, injects faults, and checks that nothing is lost."""

import asyncio
import random
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from ops.json_files import write_json
from ops.lab.chaos.faults.kinds import chosen_kinds, need_network
from ops.lab.chaos.network.own_namespace import enter_own_namespace
from ops.lab.chaos.options import Options
from ops.lab.chaos.report.run_report import Findings, RunReport, build_report
from ops.lab.chaos.report.summary import print_summary
from ops.lab.chaos.report.verdict import failures_of
from ops.lab.chaos.run import run_chaos
from ops.lab.machine import this_machine
from shared.errors import LorikeetError

REPORT = Path("chaos-report")
RETAIN_S = 300
"""Seconds for which the pool keeps answers. Faults make clocks jump by fewer seconds."""
MAX_SEED = 1_000_000

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def chaos(
    minutes: Annotated[float, typer.Option(min=0.1, help="Minutes of load and faults.")] = 20,
    streams: Annotated[int, typer.Option(min=1, help="Number of concurrent clients.")] = 200,
    adapters: Annotated[int, typer.Option(min=0, help="Number of adapters.")] = 40,
    workers: Annotated[int, typer.Option(min=1, help="Number of workers.")] = 4,
    apis: Annotated[int, typer.Option(min=1, help="Number of front ends.")] = 3,
    durability: Annotated[
        Literal["default", "strict"], typer.Option(help="Durability of the pool.")
    ] = "strict",
    seed: Annotated[
        int | None, typer.Option(help="Seed of faults and requests. Random by default.")
    ] = None,
    faults: Annotated[
        str | None, typer.Option(metavar="KIND,KIND", help="Kinds of faults. All by default.")
    ] = None,
    each: Annotated[int, typer.Option(min=0, help="Number of faults of each kind.")] = 3,
    step_ms: Annotated[int, typer.Option(min=1, help="Mean step time of the engines in ms.")] = 150,
    report: Annotated[Path, typer.Option(help="Folder for the JSON file.")] = REPORT,
) -> None:
    """Run a pool under load, inject faults, and check every answer.

    The run fails, with exit status 1, if an answer is lost or wrong, if a fault did not take place,
    or if a key is left over.
    """
    options = Options(
        minutes=minutes,
        streams=streams,
        adapters=adapters,
        workers=workers,
        apis=apis,
        durability=durability,
        seed=random.randrange(MAX_SEED) if seed is None else seed,
        faults=chosen_kinds(faults),
        each=each,
        step_ms=step_ms,
        retain_s=RETAIN_S,
    )
    if each and need_network(options.faults):
        enter_own_namespace()
    sys.exit(_run(options, report, Console()))


def _run(options: Options, folder: Path, console: Console) -> int:
    """Run, write the report, and return the exit status. Logs are kept if the run failed."""
    began = datetime.now(UTC).isoformat(timespec="seconds")
    scratch = Path(tempfile.mkdtemp(prefix="lorikeet-chaos-"))
    console.print(f"seed {options.seed}; data and logs: {scratch}", highlight=False)
    start_s = time.monotonic()

    def show(line: str) -> None:
        passed_s = time.monotonic() - start_s
        console.print(f"{passed_s:6.0f} s  {line}", markup=False, highlight=False, soft_wrap=True)

    findings = asyncio.run(run_chaos(options, scratch, show))
    report = _report(findings, options, began)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(report, folder / "chaos.json")
    print_summary(report, console)
    console.print(f"written: {folder / 'chaos.json'}", highlight=False, soft_wrap=True)
    if report.failures:
        console.print(f"logs: {scratch}", highlight=False, soft_wrap=True)
        return 1
    shutil.rmtree(scratch)
    return 0


def _report(findings: Findings, options: Options, began: str) -> RunReport:
    given = {**asdict(options), "faults": ",".join(options.faults)}
    del given["retain_s"]
    words = [f"--{name.replace('_', '-')} {value}" for name, value in given.items()]
    return build_report(
        findings,
        failures=failures_of(findings, options),
        options=options,
        command=f"python -m ops.lab.chaos {' '.join(words)}",
        began=began,
        machine=this_machine(),
    )


if __name__ == "__main__":
    try:
        app()
    except LorikeetError as error:
        sys.exit(f"chaos: {error}")
