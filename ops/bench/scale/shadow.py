"""Latency of an adapter's requests with and without a shadow that computes copies of all of them.

The engines are simulated, so a copy takes no time of the original's engine: what is measured is the
cost of the shadow in front end, queue and workers.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from ops.bench.load.percentiles import percentile
from ops.bench.measurement_process import MeasurementFailed
from ops.bench.order_statistics import ratio_text
from ops.bench.probes.finding import Chart, Finding
from ops.bench.scale.processes import LORIKEET, SimulatedPool, simulated_pool
from ops.bench.server_processes import clean_environment, process
from ops.local.embedded_redis import start_redis

POOL = "main"
NAME = "sql"
SEQUENCES = 32
STEP_MS = 20
WORKERS = 2
"""Number of workers. The requests need less than one of them."""
MAX_SHARE = 0.05
"""Target for the growth of the median latency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of the measurement."""

    rounds: int
    requests: int
    """Number of requests of each round, with a shadow and without."""
    clients: int
    tokens: int
    """Number of tokens of each answer."""


FULL = Sizes(rounds=10, requests=160, clients=8, tokens=24)
QUICK = Sizes(rounds=1, requests=4, clients=2, tokens=4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Latencies in milliseconds, sorted."""

    alone_ms: tuple[float, ...]
    shadowed_ms: tuple[float, ...]
    num_copies: int
    """Number of copies that were made."""

    @property
    def ratio(self) -> float:
        """Median latency with a shadow over the one without."""
        return median(self.shadowed_ms) / median(self.alone_ms)


def measure_shadow(
    sizes: Sizes, scratch: Path, print_line: Callable[[str], None]
) -> Iterator[Round]:
    """Yield each round, and print it.

    Raises:
        MeasurementFailed: a request failed, or no copies were made.
        ServerFailed: a process didn't become ready.
    """
    redis = start_redis(None)
    control = [LORIKEET, "control", "--redis-url", redis.url, "--pool", POOL]  # compares answers
    try:
        with (
            simulated_pool(
                redis,
                scratch,
                pool=POOL,
                workers=WORKERS,
                step_ms=STEP_MS,
                sequences=SEQUENCES,
                worker_flags=("--adapters", f"{NAME}={NAME}", "--adapter-root", str(scratch)),
            ) as pool,
            process("control", control, scratch, clean_environment()),
        ):
            for number in range(sizes.rounds):
                found = asyncio.run(_round(pool, sizes, scratch, number))
                print_line(
                    f"round {number + 1}: median {median(found.alone_ms):.1f} ms alone, "
                    f"{median(found.shadowed_ms):.1f} with {found.num_copies} copies"
                )
                yield found
    finally:
        redis.stop()


def shadow_finding(found: Sequence[Round], sizes: Sizes) -> Finding:
    """Return a finding that compares latencies with and without a shadow."""
    series = {
        "without a shadow": [(i + 1, median(one.alone_ms)) for i, one in enumerate(found)],
        "with a shadow": [(i + 1, median(one.shadowed_ms)) for i, one in enumerate(found)],
    }
    return Finding(
        name="shadow",
        figures={"sizes": sizes, "rounds": found},
        says=(
            f"median latency of {sizes.clients} clients: {ratio_text([o.ratio for o in found])} "
            f"with a shadow of all requests; target at most {1 + MAX_SHARE}",
            f"p95 {_p95([o.alone_ms for o in found]):.1f} ms without a shadow, "
            f"{_p95([o.shadowed_ms for o in found]):.1f} with one; "
            f"{sum(o.num_copies for o in found)} copies",
        ),
        chart=Chart(x="round", y="median latency in ms", series=series),
    )


def _p95(rounds: Sequence[Sequence[float]]) -> float:
    return percentile([value for times in rounds for value in times], 95)


async def _round(pool: SimulatedPool, sizes: Sizes, scratch: Path, number: int) -> Round:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{pool.api.port}", timeout=60) as http:
        found: dict[bool, tuple[float, ...]] = {}
        num_copies = 0
        for has_shadow in (False, True) if number % 2 == 0 else (True, False):
            if has_shadow:
                wanted = {"source": str(scratch / "next"), "mode": "shadow", "percent": 100}
                body = _check(await http.put(f"/v1/adapters/{NAME}/candidate", json=wanted))
                num_before = body["candidate"]["requests"]  # of an earlier trial
            found[has_shadow] = await _latencies(http, sizes, f"{number}/{has_shadow}")
            if has_shadow:
                body = _check(await http.get(f"/v1/adapters/{NAME}"))
                candidate = body["candidate"]
                num_copies = candidate["requests"] + candidate["waiting"] - num_before
                _check(await http.delete(f"/v1/adapters/{NAME}/candidate"))
        if num_copies == 0:
            raise MeasurementFailed("the shadow has computed no copies")
    return Round(alone_ms=found[False], shadowed_ms=found[True], num_copies=num_copies)


async def _latencies(http: httpx.AsyncClient, sizes: Sizes, seed: str) -> tuple[float, ...]:
    """Return the latencies of a closed loop in milliseconds, sorted."""
    times: list[float] = []

    async def client(first: int) -> None:
        for request in range(first, sizes.requests, sizes.clients):
            body = {
                "model": NAME,
                "prompt": f"{seed} {request}",
                "max_tokens": sizes.tokens,
                "ignore_eos": True,
            }
            start = time.perf_counter()
            _check(await http.post("/v1/completions", json=body))
            times.append(1000 * (time.perf_counter() - start))

    await asyncio.gather(*(client(first) for first in range(sizes.clients)))
    return tuple(sorted(times))


def _check(reply: httpx.Response) -> dict[str, Any]:
    if not reply.is_success:
        raise MeasurementFailed(f"HTTP {reply.status_code}: {reply.text[:200]}")
    body: dict[str, Any] = reply.json()
    return body
