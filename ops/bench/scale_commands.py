"""Commands of `python -m ops.bench` that measure the queue, with simulated engines or none."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from ops.bench.options import RESULTS, Quick, ResultsFolder
from ops.bench.probe_run import show
from ops.bench.scale import api_cpu as cpu
from ops.bench.scale import first_token as first
from ops.bench.scale import shadow as shadows
from ops.bench.scale import worker_rates as rates
from ops.bench.scale.fairness import rounds as fair
from ops.bench.scale.fairness.finding import fairness_finding
from ops.bench.scale.fairness.measure import measure_fairness
from ops.bench.scale.one_redis import queue_tokens as tokens
from ops.bench.scale.sweep import loads
from ops.bench.scale.sweep.finding import sweep_finding
from ops.bench.scale.sweep.measure import measure_scale

SIMULATED, NO_MODEL = Path("simulated"), Path("none")


Baseline = Annotated[
    Path | None,
    typer.Option(help="Checkout of another commit, to compare with.", metavar="DIR"),
]

scale_app = typer.Typer()


@scale_app.command()
def scale(quick: Quick = False, results: ResultsFolder = RESULTS) -> None:
    """Raise the load of 1,000 simulated workers with 10,000 adapters until it saturates."""
    with TemporaryDirectory(prefix="lorikeet-bench-") as scratch:
        found = measure_scale(loads.QUICK if quick else loads.FULL, Path(scratch), _print)
    show(sweep_finding(found), SIMULATED, results)


@scale_app.command()
def queue_tokens(
    baseline: Baseline = None,
    quick: Quick = False,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure how many jobs and tokens per second one Redis carries, without engines."""
    sizes = tokens.QUICK if quick else tokens.FULL
    rows = tokens.measure_queue_tokens(sizes, baseline, _print)
    show(tokens.queue_tokens_finding(rows), NO_MODEL, results)


@scale_app.command()
def api_cpu(
    baseline: Baseline = None,
    quick: Quick = False,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure the CPU time of the API process for each streamed token of chats."""
    sizes = cpu.QUICK if quick else cpu.FULL
    with TemporaryDirectory(prefix="lorikeet-bench-") as scratch:
        rounds = cpu.measure_api_cpu(sizes, baseline, Path(scratch), _print)
    show(cpu.api_cpu_finding(rounds, sizes), SIMULATED, results)


@scale_app.command()
def first_token(quick: Quick = False, results: ResultsFolder = RESULTS) -> None:
    """Compare the first token through queue and front end with a direct call of the engine."""
    sizes = first.QUICK if quick else first.FULL
    with TemporaryDirectory(prefix="lorikeet-bench-") as scratch:
        found = first.measure_first_token(sizes, Path(scratch))
    show(first.first_token_finding(found, sizes), SIMULATED, results)


@scale_app.command()
def workers(quick: Quick = False, results: ResultsFolder = RESULTS) -> None:
    """Compare the throughput of 16 workers with 16 times that of one."""
    sizes = rates.QUICK if quick else rates.FULL
    with TemporaryDirectory(prefix="lorikeet-bench-") as scratch:
        rounds = rates.measure_worker_rates(sizes, Path(scratch), _print)
    show(rates.worker_rates_finding(rounds, sizes), SIMULATED, results)


@scale_app.command()
def fairness(quick: Quick = False, results: ResultsFolder = RESULTS) -> None:
    """Measure waiting times beside a tenant with many jobs, and shares by weight."""
    sizes = fair.QUICK if quick else fair.FULL
    with TemporaryDirectory(prefix="lorikeet-bench-") as scratch:
        rounds = measure_fairness(sizes, Path(scratch), _print)
    show(fairness_finding(rounds, sizes), SIMULATED, results)


@scale_app.command()
def shadow(quick: Quick = False, results: ResultsFolder = RESULTS) -> None:
    """Measure the latency of requests with and without a shadow that computes their copies."""
    sizes = shadows.QUICK if quick else shadows.FULL
    with TemporaryDirectory(prefix="lorikeet-bench-") as scratch:
        rounds = list(shadows.measure_shadow(sizes, Path(scratch), _print))
    show(shadows.shadow_finding(rounds, sizes), SIMULATED, results)


def _print(line: str) -> None:
    print(line, flush=True)
