"""Time to the first token through queue and front end, against direct calls of the same engine.

Both are measured twice: without other requests, and beside streams that run all the time.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from ops.bench.load.percentiles import percentile
from ops.bench.load.prompts import prompt
from ops.bench.measurement_process import MeasurementFailed
from ops.bench.probes.finding import Chart, Finding, Points
from ops.bench.scale.cpu_times import Part
from ops.bench.scale.direct_calls import direct_engine
from ops.bench.scale.processes import BASE, SimulatedPool, simulated_pool
from ops.bench.scale.streams.http_client import HttpClient
from ops.bench.scale.streams.received_stream import ReceivedStream
from ops.bench.scale.streams.stream_load import PROMPT_WORDS, Models, StreamLoad, body_of
from ops.local.embedded_redis import start_redis

POOL = "main"
MAX_P50_MS = 5.0
"""Target for the median over a direct call."""
MAX_P99_MS = 15.0
MEASURED_TOKENS = 2
BACKGROUND_TOKENS = 64
SEQUENCES = 64
MAX_POINTS = 200
"""Number of points of a curve in the plot."""

Call = Callable[[int], Awaitable[float]]
"""Sends request n, and returns the seconds until its first token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of the measurement."""

    requests: int
    """Number of measured requests of each kind. They are sent one after another."""
    step_ms: int
    """Duration of an engine's step."""
    background: int
    """Number of streams that run beside the measured requests."""
    warm_up: int
    """Number of requests before the measured ones."""


FULL = Sizes(requests=1500, step_ms=5, background=8, warm_up=50)
QUICK = Sizes(requests=20, step_ms=2, background=2, warm_up=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """First-token times at one load, in milliseconds, sorted."""

    background: int
    """Number of streams that ran beside the measured requests."""
    direct_ms: tuple[float, ...]
    served_ms: tuple[float, ...]
    api_cores: float
    """CPU seconds per second of the API process while requests were measured."""

    def added_ms(self, percent: float) -> float:
        """Return by how much a percentile of `served_ms` exceeds that of `direct_ms`."""
        return percentile(self.served_ms, percent) - percentile(self.direct_ms, percent)


def measure_first_token(sizes: Sizes, scratch: Path) -> list[Compared]:
    """Measure without background streams, then with them.

    Raises:
        MeasurementFailed: a request failed.
        ServerFailed: a process didn't become ready.
    """
    redis = start_redis(None)
    try:
        with simulated_pool(
            redis, scratch, pool=POOL, step_ms=sizes.step_ms, sequences=SEQUENCES
        ) as pool:
            return [asyncio.run(_compare(pool, sizes, n)) for n in (0, sizes.background)]
    finally:
        redis.stop()


def first_token_finding(found: Sequence[Compared], sizes: Sizes) -> Finding:
    """Return a finding with one line per load."""
    series: dict[str, Points] = {}
    for one in found:
        load = f"{one.background} streams" if one.background else "unloaded"
        series[f"direct, {load}"] = _distribution(one.direct_ms)
        series[f"served, {load}"] = _distribution(one.served_ms)
    return Finding(
        name="first-token",
        figures={"sizes": sizes, "compared": found},
        says=tuple(map(_line, found)),
        chart=Chart(x="ms to the first token", y="share within", series=series),
    )


async def _compare(pool: SimulatedPool, sizes: Sizes, background: int) -> Compared:
    async with direct_engine(step_ms=sizes.step_ms, sequences=SEQUENCES) as engine:

        async def direct(number: int) -> float:
            text = prompt("direct", number, PROMPT_WORDS)
            return await engine.first_token_s(text, MEASURED_TOKENS)

        async def stream(number: int) -> None:
            while True:
                await engine.first_token_s(f"background {number}", BACKGROUND_TOKENS)

        streams = [asyncio.create_task(stream(number)) for number in range(background)]
        direct_s = await _sample(direct, sizes)
        for task in streams:
            task.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
    api = Part(pids=[pool.api.pid])
    async with _served(pool, background) as served:
        cpu_s, start_s = api.cpu_s(), asyncio.get_running_loop().time()
        served_s = await _sample(served, sizes)
        seconds = asyncio.get_running_loop().time() - start_s
        cpu_s = api.cpu_s() - cpu_s
    return Compared(
        background=background,
        direct_ms=tuple(sorted(1000 * value for value in direct_s)),
        served_ms=tuple(sorted(1000 * value for value in served_s)),
        api_cores=cpu_s / seconds,
    )


@asynccontextmanager
async def _served(pool: SimulatedPool, background: int) -> AsyncIterator[Call]:
    """Provide calls over HTTP while background streams run."""
    client = HttpClient(pool.api.port)

    async def served(number: int) -> float:
        received = ReceivedStream()
        text = prompt("served", number, PROMPT_WORDS)
        await client.send(orjson.dumps(body_of(BASE, MEASURED_TOKENS, text)), received)
        if received.error or not received.token_s:
            raise MeasurementFailed(f"a request failed: {received.error}")
        return received.first_token_s

    load = StreamLoad([client.send], Models([BASE], 1.0))
    load.resize(background, BACKGROUND_TOKENS)
    try:
        yield served
    finally:
        await load.drain()
        await client.close()
    if load.totals.errors:
        raise MeasurementFailed(f"a background stream failed: {load.totals.errors[0]}")


async def _sample(call: Call, sizes: Sizes) -> list[float]:
    """Return the first-token times of sequential calls with random pauses.

    The pauses let the calls begin at all moments of a step.
    """
    random_pause, times = random.Random(0), []
    for number in range(sizes.warm_up + sizes.requests):
        times.append(await call(number))
        await asyncio.sleep(random_pause.uniform(0, 2 * sizes.step_ms / 1000))
    return times[sizes.warm_up :]


def _distribution(sorted_ms: Sequence[float]) -> Points:
    count = len(sorted_ms)
    every = max(1, count // MAX_POINTS)
    return [(sorted_ms[n], (n + 1) / count) for n in range(0, count, every)]


def _line(one: Compared) -> str:
    load = f"beside {one.background} streams" if one.background else "unloaded"
    p50, p99 = one.added_ms(50), one.added_ms(99)
    is_met = p50 <= MAX_P50_MS and p99 <= MAX_P99_MS
    return (
        f"first token {load}: p50 {percentile(one.served_ms, 50):.1f} ms, {p50:.1f} over a direct "
        f"call; p99 {percentile(one.served_ms, 99):.1f} ms, {p99:.1f} over it "
        f"(target {MAX_P50_MS:.0f} and {MAX_P99_MS:.0f}: {'met' if is_met else 'missed'}); "
        f"API process {one.api_cores:.2f} cores"
    )
