"""Raises the load of a large pool step by step, and measures rates, delays and CPU times."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from ops.bench.load.percentiles import percentile
from ops.bench.measurement_process import MeasurementFailed
from ops.bench.scale.hosts.scale_pool import ScalePool, scale_pool
from ops.bench.scale.key_bytes import KindBytes
from ops.bench.scale.streams.token_times import delays_s
from ops.bench.scale.sweep.loads import Load, PoolLoads, Shape
from ops.bench.scale.sweep.results import CommandUse, Measured, PoolResults, Sweep

MAX_COMMANDS = 12
"""Number of Redis commands that a result lists, those that take the most time."""


def measure_scale(
    shape: Shape, scratch: Path, report: Callable[[str], None] = lambda _: None
) -> Sweep:
    """Start one pool after the other, and measure their loads.

    `report` is called with a line for each load.

    Raises:
        MeasurementFailed: a process ended, or requests failed.
    """
    small, large = (
        _measure_pool(loads, shape, scratch, report) for loads in (shape.small, shape.large)
    )
    return Sweep(shape=shape, small=small, large=large)


def _measure_pool(
    loads: PoolLoads, shape: Shape, scratch: Path, report: Callable[[str], None]
) -> PoolResults:
    report(f"starting {loads.pool.workers} workers and {loads.pool.adapters} adapters")
    with TemporaryDirectory(dir=scratch) as logs, scale_pool(loads.pool, Path(logs)) as pool:
        results, running_bytes = [], dict[str, KindBytes]()
        num_running = max(load.streams for load in loads.loads)
        for load in loads.loads:
            results.append(_measure(pool, load, shape))
            report(results[-1].describe())
            if load.streams == num_running:
                running_bytes = pool.key_bytes()
        pool.drain()
        return PoolResults(
            results=tuple(results),
            running_bytes=running_bytes,
            num_running=num_running,
            ended_bytes=pool.key_bytes(),
            lease_losses=pool.num_lease_losses(),
        )


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """Counters at one moment."""

    at_s: float
    cpu_s: dict[str, float]
    busy_s: float
    commands: dict[str, dict[str, float]]
    jobs: int
    tokens: int
    """Number of tokens that clients have received."""
    steps: int
    step_tokens: int
    """Number of tokens that engines have produced."""


def _measure(pool: ScalePool, load: Load, shape: Shape) -> Measured:
    for host in pool.hosts(over_http=not load.over_http):
        host.ask("drain")
    hosts = pool.hosts(over_http=load.over_http)
    for number, host in enumerate(hosts):
        share = load.streams // len(hosts) + (number < load.streams % len(hosts))
        host.ask("resize", streams=share, tokens=load.tokens_per_job)
    time.sleep(shape.warm_up_s)
    before = _snapshot(pool)
    _delays_s(pool)
    time.sleep(shape.window_s)
    after, delays = _snapshot(pool), _delays_s(pool)
    seconds = after.at_s - before.at_s
    cores = {name: (after.cpu_s[name] - start) / seconds for name, start in before.cpu_s.items()}
    return Measured(
        load=load,
        seconds=seconds,
        jobs_per_s=(after.jobs - before.jobs) / seconds,
        tokens_per_s=(after.tokens - before.tokens) / seconds,
        ceiling_tokens_per_s=load.streams * 1000 / pool.size.step_ms,
        delay_p50_ms=1000 * percentile(delays, 50),
        delay_p99_ms=1000 * percentile(delays, 99),
        tokens_per_step=_ratio(after.step_tokens - before.step_tokens, after.steps - before.steps),
        cores=cores,
        busy_cores=(after.busy_s - before.busy_s) / seconds,
        commands=_command_uses(before, after),
    )


def _snapshot(pool: ScalePool) -> _Snapshot:
    totals = [host.ask("totals") for host in pool.hosts(over_http=False)]
    totals += [host.ask("totals") for host in pool.hosts(over_http=True)]
    if errors := [error for of_host in totals for error in of_host["errors"]]:
        raise MeasurementFailed(f"requests failed: {errors[0]}")
    machine, steps = psutil.cpu_times(), [host.ask("steps") for host in pool.worker_hosts]
    return _Snapshot(
        at_s=time.monotonic(),
        cpu_s={name: part.cpu_s() for name, part in pool.parts.items()},
        busy_s=machine.user + machine.nice + machine.system,
        commands=pool.command_stats(),
        jobs=sum(of_host["jobs"] for of_host in totals),
        tokens=sum(of_host["tokens"] for of_host in totals),
        steps=sum(of_host for of_host, _ in steps),
        step_tokens=sum(of_host for _, of_host in steps),
    )


def _ratio(amount: int, count: int) -> float:
    return amount / count if count else math.nan


def _delays_s(pool: ScalePool) -> list[float]:
    """Return the delays of sampled tokens since the last call."""
    hosts = (*pool.hosts(over_http=False), *pool.hosts(over_http=True))
    arrived = [arrival for host in hosts for arrival in host.ask("arrived")]
    produced = [arrival for host in pool.worker_hosts for arrival in host.ask("produced")]
    return delays_s(produced, arrived)


def _command_uses(before: _Snapshot, after: _Snapshot) -> dict[str, CommandUse]:
    seconds = after.at_s - before.at_s
    uses = {}
    for name, stats in after.commands.items():
        earlier = before.commands.get(name, {"calls": 0, "usec": 0})
        calls, us = stats["calls"] - earlier["calls"], stats["usec"] - earlier["usec"]
        uses[name] = CommandUse(calls_per_s=calls / seconds, ms_per_s=us / 1000 / seconds)
    largest = sorted(uses.items(), key=lambda item: -item[1].ms_per_s)
    return dict(largest[:MAX_COMMANDS])
