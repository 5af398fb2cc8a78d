"""Measures a pool for a while under a closed loop of streams."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import psutil

from ops.lab.bench.frame.measurement_process import MeasurementFailed
from ops.lab.bench.streams.stream_load import StreamLoad


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Figures of a load during the measured period."""

    seconds: float
    tokens: int
    cpu_s: Mapping[str, float]
    """CPU time of each part of the pool in seconds, by the part's name."""
    first_token_s: float
    """Median time to the first token, in seconds."""


async def measure_window(
    load: StreamLoad,
    parts: Mapping[str, Sequence[int]],
    *,
    streams: int,
    warm_up_s: float,
    window_s: float,
) -> Window:
    """Run `streams` streams for `warm_up_s` seconds, and then measure them for `window_s` seconds.

    `parts` maps the name of each part of the pool to the ids of its processes.

    Raises:
        MeasurementFailed: a request failed.
    """
    clock = asyncio.get_running_loop().time
    load.start(streams)
    await asyncio.sleep(warm_up_s)
    start_s, num_tokens = clock(), load.totals.tokens
    load.totals.first_token_s.clear()
    used_s = {name: cpu_s(pids) for name, pids in parts.items()}
    await asyncio.sleep(window_s)
    seconds, num_tokens = clock() - start_s, load.totals.tokens - num_tokens
    used_s = {name: cpu_s(pids) - used_s[name] for name, pids in parts.items()}
    await load.drain()
    if load.totals.errors:
        raise MeasurementFailed(f"a request failed: {load.totals.errors[0]}")
    return Window(
        seconds=seconds,
        tokens=num_tokens,
        cpu_s=used_s,
        first_token_s=median(load.totals.first_token_s),
    )


def cpu_s(pids: Iterable[int]) -> float:
    """Return the total CPU time that the processes `pids` have used so far, in seconds."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return float(sum(one.user + one.system for one in times))
