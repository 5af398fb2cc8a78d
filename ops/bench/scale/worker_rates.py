"""Throughput of many workers against one worker, all as processes with simulated engines.

Steps are long, so that the engines limit the throughput and not the cores of the machine.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ops.bench.compare.results import Spread, spread
from ops.bench.measurement_process import MeasurementFailed
from ops.bench.probes.finding import Chart, Finding, Points
from ops.bench.scale.cpu_times import Part
from ops.bench.scale.processes import BASE, SimulatedPool, simulated_pool
from ops.bench.scale.streams.http_client import HttpClient, allow_many_connections
from ops.bench.scale.streams.stream_load import Models, StreamLoad
from ops.local.embedded_redis import start_redis

MIN_SHARE = 0.95
"""Target for the rate of many workers, as a share of their number times the rate of one."""
STREAMS_PER_SEQUENCE = 1.5
"""Number of streams per sequence of the engines, so that jobs always wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of the measurement."""

    workers: int
    sequences: int
    """Number of jobs that run on a worker at the same time."""
    step_ms: int
    tokens_per_job: int
    warm_up_s: float
    window_s: float
    """Duration of each measurement."""
    rounds: int
    """Number of rounds. Each measures one worker, then all."""

    def ceiling(self, num_workers: int) -> float:
        """Return the tokens per second of engines that never wait."""
        return num_workers * self.sequences * 1000 / self.step_ms


FULL = Sizes(
    workers=16,
    sequences=8,
    step_ms=200,
    tokens_per_job=32,
    warm_up_s=7,  # more than the duration of a job
    window_s=10,
    rounds=3,
)
QUICK = Sizes(
    workers=2, sequences=2, step_ms=20, tokens_per_job=8, warm_up_s=0.3, window_s=0.5, rounds=1
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Throughput of one pool in one round."""

    workers: int
    tokens_per_s: float
    ceiling_tokens_per_s: float
    cores: dict[str, float]
    """CPU seconds per second by part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Rates of one round."""

    one: Rate
    many: Rate

    @property
    def share(self) -> float:
        """Rate of many workers, as a share of their number times the rate of one."""
        return self.many.tokens_per_s / (self.many.workers * self.one.tokens_per_s)


def measure_worker_rates(
    sizes: Sizes, scratch: Path, report: Callable[[str], None] = lambda _: None
) -> list[Round]:
    """Run a pool with one worker and a pool with many, and measure them in turn.

    Both pools share a Redis. `report` is called with a line for each round.

    Raises:
        MeasurementFailed: a request failed.
        ServerFailed: a process didn't become ready.
    """
    allow_many_connections()
    with ExitStack() as stack:
        redis = start_redis(None)
        stack.callback(redis.stop)

        def start(name: str, workers: int) -> SimulatedPool:
            return stack.enter_context(
                simulated_pool(
                    redis,
                    scratch,
                    pool=name,
                    workers=workers,
                    step_ms=sizes.step_ms,
                    sequences=sizes.sequences,
                )
            )

        one, many = start("one", 1), start("many", sizes.workers)
        rounds = []
        for _ in range(sizes.rounds):
            rounds.append(
                Round(one=asyncio.run(_rate(one, sizes)), many=asyncio.run(_rate(many, sizes)))
            )
            report(f"{rounds[-1].share:.3f} of {sizes.workers} times one worker")
        return rounds


def worker_rates_finding(rounds: Sequence[Round], sizes: Sizes) -> Finding:
    """Return a finding with the rates of one worker and of many."""
    shares = spread([one.share for one in rounds])
    ones: Points = [(n + 1, sizes.workers * r.one.tokens_per_s) for n, r in enumerate(rounds)]
    many: Points = [(n + 1, r.many.tokens_per_s) for n, r in enumerate(rounds)]
    return Finding(
        name="workers",
        figures={"sizes": sizes, "rounds": rounds, "share": shares},
        says=(_share_line(rounds, shares, sizes), _cores_line(rounds[-1].many)),
        chart=Chart(
            x="round",
            y="tokens per second",
            series={f"{sizes.workers} x one worker": ones, f"{sizes.workers} workers": many},
            joined=False,
        ),
    )


async def _rate(pool: SimulatedPool, sizes: Sizes) -> Rate:
    num_workers = len(pool.worker_pids)
    client = HttpClient(pool.api.port)
    load = StreamLoad([client.send], Models([BASE], 1.0))
    num_streams = round(STREAMS_PER_SEQUENCE * num_workers * sizes.sequences)
    load.resize(num_streams, sizes.tokens_per_job)
    parts = {
        "redis": Part(pids=[pool.redis.pid]),
        "workers": Part(pids=pool.worker_pids),
        "API process": Part(pids=[pool.api.pid]),
    }
    clock = asyncio.get_running_loop().time
    await asyncio.sleep(sizes.warm_up_s)
    start_s, start = clock(), load.totals.tokens
    cpu_s = {name: part.cpu_s() for name, part in parts.items()}
    await asyncio.sleep(sizes.window_s)
    seconds, tokens = clock() - start_s, load.totals.tokens - start
    cores = {name: (part.cpu_s() - cpu_s[name]) / seconds for name, part in parts.items()}
    await load.drain()
    await client.close()
    if load.totals.errors:
        raise MeasurementFailed(f"a request failed: {load.totals.errors[0]}")
    return Rate(
        workers=num_workers,
        tokens_per_s=tokens / seconds,
        ceiling_tokens_per_s=sizes.ceiling(num_workers),
        cores=cores,
    )


def _share_line(rounds: Sequence[Round], shares: Spread, sizes: Sizes) -> str:
    one = spread([r.one.tokens_per_s for r in rounds])
    many = spread([r.many.tokens_per_s for r in rounds])
    return (
        f"{sizes.workers} workers: {many.median:,.0f} tokens/s, {100 * shares.median:.1f} % "
        f"({100 * shares.low:.1f} to {100 * shares.high:.1f}) of {sizes.workers} times the "
        f"{one.median:,.1f} tokens/s of one (target {100 * MIN_SHARE:.0f} %: "
        f"{'met' if shares.low >= MIN_SHARE else 'missed'}); engines that never wait: "
        f"{sizes.ceiling(sizes.workers):,.0f}"
    )


def _cores_line(rate: Rate) -> str:
    cores = ", ".join(f"{name} {used:.2f}" for name, used in rate.cores.items())
    return f"cores in use with {rate.workers} workers: {cores}"
