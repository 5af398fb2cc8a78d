"""`python -m ops.bench.probes.tier_process`: probes of adapter loads, each in a separate process.

Each command prints its results as one line of JSON.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import psutil
import typer

from worker.startup.process_tuning import share_cores, use_huge_pages

if TYPE_CHECKING:
    from ops.bench.probes.tier_engine import TierEngine

STEPS_BETWEEN = 20
"""Number of steps between two loads.

These steps are the baseline. They are measured before every load, so that a drift of the machine's
speed affects steps with and without loads alike.
"""
SAMPLES = 100
"""Approximate number of memory samples."""
MIB = 1 << 20

Model = Annotated[Path, typer.Argument(help="folder of the base model")]
Adapters = Annotated[list[Path], typer.Argument(help="folders of adapters")]

app = typer.Typer(pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadingSteps:
    """Durations of decode steps with and without a concurrent load of an adapter."""

    adapter_bytes: int
    load_s: list[float]
    """Duration of each load."""
    usual_ms: list[float]
    """Durations of the steps between loads."""
    loading_ms: list[float]
    """Durations of the steps that overlap a load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turnover:
    """Memory use after a given number of adapter loads."""

    loads: int
    rss_bytes: int
    """Growth of the process's resident set size since the start of the measurement."""
    device_bytes: int
    """Number of bytes used out of the device budget."""
    host_bytes: int
    """Number of bytes used out of the host budget."""


@app.command()
def loading(
    model: Model,
    large: Annotated[Path, typer.Argument(help="folder of the adapter to load")],
    adapters: Adapters,
    clients: Annotated[int, typer.Option(help="number of sequences that decode")],
    rounds: Annotated[int, typer.Option(help="number of loads")],
) -> None:
    """Measure decode steps with `adapters` while the adapter `large` is repeatedly loaded."""
    _prepare()
    print(json.dumps(asdict(asyncio.run(_loading(model, large, adapters, clients, rounds)))))


@app.command()
def turnover(
    model: Model,
    adapters: Adapters,
    loads: Annotated[int, typer.Option(help="number of adapters that are loaded in turn")],
    device_mb: Annotated[int, typer.Option(help="MiB of device memory for adapters")],
    host_mb: Annotated[int, typer.Option(help="MiB of host memory for adapters")],
) -> None:
    """Measure memory use while adapters are loaded one after another."""
    _prepare()
    samples = asyncio.run(_turnover(model, adapters, loads, device_mb, host_mb))
    print(json.dumps([asdict(sample) for sample in samples]))


def _prepare() -> None:
    share_cores()  # as the worker does, before torch is imported
    use_huge_pages()


async def _loading(
    model: Path, large: Path, adapters: list[Path], clients: int, rounds: int
) -> LoadingSteps:
    size = 2 * sum(map(_bytes, (*adapters, large))) // MIB + 1
    engine = _engine(model, size, size, clients)
    versions = [(await engine.load(folder.name, folder)).version for folder in adapters]
    await engine.decode(clients, versions)
    found = LoadingSteps(adapter_bytes=_bytes(large), load_s=[], usual_ms=[], loading_ms=[])
    for _ in range(rounds):
        first = len(engine.step_ends_s)
        await engine.steps(STEPS_BETWEEN)
        # The engine may have run further steps while this coroutine waited.
        usual = engine.step_ends_s[first : first + STEPS_BETWEEN]
        found.usual_ms.extend(steps_ms(usual, usual[0], usual[-1]))
        loaded = await engine.load(large.name, large)
        await engine.steps(2)
        found.load_s.append(loaded.end_s - loaded.start_s)
        found.loading_ms.extend(steps_ms(engine.step_ends_s[first:], loaded.start_s, loaded.end_s))
        await engine.unload(loaded.version)
    engine.stop()
    return found


async def _turnover(
    model: Path, adapters: list[Path], loads: int, device_mb: int, host_mb: int
) -> list[Turnover]:
    engine = _engine(model, device_mb, host_mb, 1)
    process = psutil.Process()
    first = await engine.load("first", adapters[0])  # one-time allocations of the first load
    await engine.unload(first.version)
    start = process.memory_info().rss
    samples = []
    for number in range(loads):
        await engine.load(f"t{number}", adapters[number % len(adapters)])
        if number % max(1, loads // SAMPLES) == 0 or number == loads - 1:
            device_bytes, host_bytes = await engine.used_bytes()
            samples.append(
                Turnover(
                    loads=number + 1,
                    rss_bytes=process.memory_info().rss - start,
                    device_bytes=device_bytes,
                    host_bytes=host_bytes,
                )
            )
    engine.stop()
    return samples


def _engine(model: Path, device_mb: int, host_mb: int, num_seqs: int) -> "TierEngine":
    from ops.bench.probes.tier_engine import TierEngine

    return TierEngine(
        model, device_bytes=device_mb * MIB, host_bytes=host_mb * MIB, num_seqs=num_seqs
    )


def _bytes(folder: Path) -> int:
    return (folder / "adapter_model.safetensors").stat().st_size


def steps_ms(ends_s: Sequence[float], start_s: float, end_s: float) -> list[float]:
    """Return the duration in ms of each step that overlaps the interval `start_s` to `end_s`.

    `ends_s` are the end times of consecutive steps. Each step starts when the previous step ends.
    """
    return [
        1000 * (after - before)
        for before, after in pairwise(ends_s)
        if after > start_s and before < end_s
    ]


if __name__ == "__main__":
    app()
