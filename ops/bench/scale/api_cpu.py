"""Measures the CPU time that an API process needs for each streamed token of chats.

Two API processes, one of this checkout and one of another, serve the same pool with a simulated
engine. They are measured in turn.
"""

import asyncio
import os
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean

from ops.bench.machine import ROOT
from ops.bench.measurement_process import MeasurementFailed
from ops.bench.probes.finding import Chart, Finding
from ops.bench.scale.checkouts import checked
from ops.bench.scale.cpu_times import Part
from ops.bench.scale.processes import BASE, ApiProcess, api_process, simulated_pool
from ops.bench.scale.streams.http_client import HttpClient
from ops.bench.scale.streams.stream_load import Models, StreamLoad, chat_body_of
from ops.local.embedded_redis import EmbeddedRedis, start_redis

POOL = "main"
PATH = "/v1/chat/completions"
RUN_API = """
import sys
from api.server import run_api
from shared.settings import ApiSettings
run_api(ApiSettings(redis_url=sys.argv[1], pool=sys.argv[2], port=int(sys.argv[3])))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of the measurement."""

    clients: int
    tokens_per_job: int
    step_ms: int
    warm_up_s: float
    """Duration of the load before each measurement."""
    window_s: float
    """Duration of each measurement."""
    rounds: int
    """Number of rounds. Each measures both processes."""


FULL = Sizes(clients=32, tokens_per_job=64, step_ms=30, warm_up_s=2, window_s=8, rounds=8)
QUICK = Sizes(clients=2, tokens_per_job=4, step_ms=10, warm_up_s=0.2, window_s=0.5, rounds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """CPU time per token in one round, in microseconds."""

    us: float
    baseline_us: float | None
    """That of the other checkout; None if there is none."""


def measure_api_cpu(
    sizes: Sizes, baseline: Path | None, scratch: Path, report: Callable[[str], None]
) -> list[Round]:
    """Run all rounds. `report` is called with a line for each round.

    Raises:
        MeasurementFailed: a request failed.
        ServerFailed: a process didn't become ready.
        SettingsError: `baseline` isn't a checkout of Lorikeet.
    """
    redis, rounds = start_redis(None), []
    try:
        with (
            simulated_pool(
                redis, scratch, pool=POOL, step_ms=sizes.step_ms, sequences=sizes.clients
            ),
            ExitStack() as stack,
        ):
            new = stack.enter_context(_api_of(ROOT, redis, scratch))
            old = stack.enter_context(_api_of(baseline, redis, scratch)) if baseline else None
            for _ in range(sizes.rounds):
                rounds.append(_round(new, old, sizes))
                report(_line(rounds[-1]))
    finally:
        redis.stop()
    return rounds


def api_cpu_finding(rounds: Sequence[Round], sizes: Sizes) -> Finding:
    """Return a finding with the CPU times of all rounds."""
    us = geometric_mean(one.us for one in rounds)
    says = f"chat, {sizes.clients} clients: {us:.1f} us of the API process per token"
    series = {"now": [(n + 1.0, one.us) for n, one in enumerate(rounds)]}
    ratios = [one.us / one.baseline_us for one in rounds if one.baseline_us]
    if ratios:
        before = [(n + 1.0, one.baseline_us or 0.0) for n, one in enumerate(rounds)]
        series["before"] = before
        says += (
            f", {geometric_mean(y for _, y in before):.1f} before; "
            f"{geometric_mean(ratios):.3f} x ({min(ratios):.3f} to {max(ratios):.3f})"
        )
    return Finding(
        name="api-cpu",
        figures={"sizes": sizes, "rounds": rounds},
        says=(says,),
        chart=Chart(x="round", y="microseconds per token", series=series, joined=False),
    )


@contextmanager
def _api_of(checkout: Path, redis: EmbeddedRedis, scratch: Path) -> Iterator[ApiProcess]:
    """Run an API process with the code of `checkout`."""
    root = str(checked(checkout).absolute())
    with api_process(
        redis.url,
        POOL,
        scratch,
        command=lambda port: [sys.executable, "-c", RUN_API, redis.url, POOL, str(port)],
        environment={"PYTHONPATH": os.pathsep.join((root, os.environ.get("PYTHONPATH", "")))},
    ) as started:
        yield started


def _round(new: ApiProcess, old: ApiProcess | None, sizes: Sizes) -> Round:
    """Measure both processes, in random order."""
    us: dict[int, float] = {}
    processes = [new] if old is None else random.sample([new, old], 2)
    for process in processes:
        us[process.pid] = asyncio.run(_us_per_token(process, sizes))
    return Round(us=us[new.pid], baseline_us=us[old.pid] if old else None)


async def _us_per_token(api: ApiProcess, sizes: Sizes) -> float:
    client, part = HttpClient(api.port, path=PATH), Part(pids=[api.pid])
    load = StreamLoad([client.send], Models([BASE], 1.0), body_of=chat_body_of)
    load.resize(sizes.clients, sizes.tokens_per_job)
    await asyncio.sleep(sizes.warm_up_s)
    cpu_s, tokens = part.cpu_s(), load.totals.tokens
    await asyncio.sleep(sizes.window_s)
    cpu_s, tokens = part.cpu_s() - cpu_s, load.totals.tokens - tokens
    await load.drain()
    await client.close()
    if load.totals.errors:
        raise MeasurementFailed(f"a request failed: {load.totals.errors[0]}")
    return 1e6 * cpu_s / tokens


def _line(one: Round) -> str:
    before = f", {one.baseline_us:.1f} before" if one.baseline_us else ""
    return f"{one.us:.1f} us per token{before}"
