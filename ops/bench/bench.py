"""One benchmark run: each measurement in turn, with the machine for itself."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.progress import Progress

from ops.bench.adapters import make_adapters
from ops.bench.floor import Floor
from ops.bench.load import Load, LoadReport, run_load
from ops.bench.machine import ROOT, this_machine
from ops.bench.queue import QueueReport, measure_queue
from ops.bench.results import LABELS, Repeat, Results, Scenario
from ops.bench.servers import BASE, lorikeet
from ops.embedded import start_redis

WARM_UP_TOKENS = 8
NUM_REQUESTS_ALONE = 4
"""A single client sends so many requests; several send two each."""


class MeasurementFailed(Exception):
    """A measurement's process has ended with an error; has its last words."""


class Bench:
    """The measurements of one model, with their progress on `bar`."""

    def __init__(self, model: Path, clients: Sequence[int], scratch: Path, bar: Progress) -> None:
        self._model = model
        self._clients = clients
        self._scratch = scratch
        self._bar = bar
        with self._stage("make the adapters"):
            self._adapters = make_adapters(model, scratch / "adapters")
        self._scenarios = [
            *(Scenario(kind="base", clients=number) for number in clients),
            *(Scenario(kind="adapters", clients=number) for number in clients),
        ]

    def run(self, num_repeats: int) -> Results:
        """Measure everything; the peer and Lorikeet take turns.

        Raises:
            MeasurementFailed: a peer's process ended with an error.
            ServerFailed: Lorikeet didn't start.
        """
        return Results(
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=this_machine(),
            model=self._model.name,
            queue=self._queue(),
            floor=self._floor(),
            repeats=tuple(self._repeat(number) for number in range(num_repeats)),
        )

    def _queue(self) -> QueueReport:
        with self._stage("queue"):
            redis = start_redis(self._scratch / "queue")
            try:
                return asyncio.run(measure_queue(redis.url))
            finally:
                redis.stop()

    def _floor(self) -> tuple[Floor, ...]:
        with self._stage("GEMM floor"):
            flags = [f"--batch={number}" for number in self._clients]
            found = _run_module("floor", str(self._model), *flags)
            return tuple(Floor(**floor) for floor in found)

    def _repeat(self, number: int) -> Repeat:
        return Repeat(peft=self._peft(number), lorikeet=tuple(self._lorikeet(number)))

    def _peft(self, number: int) -> dict[int, float]:
        with self._stage(f"PEFT, round {number + 1}"):
            flags = [f"--sequences={clients}" for clients in self._clients]
            seed = f"--seed={number}/adapters"
            adapters = str(self._scratch / "adapters")
            found = _run_module("peft_peer", str(self._model), adapters, seed, *flags)
            return {int(size): speed for size, speed in found.items()}

    def _lorikeet(self, number: int) -> list[tuple[Scenario, LoadReport]]:
        with ExitStack() as stack:
            with self._stage(f"start Lorikeet, round {number + 1}"):
                folder = stack.enter_context(TemporaryDirectory(dir=self._scratch))
                served = lorikeet(self._model, self._adapters, Path(folder))
                url = stack.enter_context(served)
            self._warm_up(url)
            return [(s, self._measure(url, s, number)) for s in self._scenarios]

    def _warm_up(self, url: str) -> None:
        """Answer a few tokens of each model at full width, so that no start-up cost is measured."""
        models = (BASE, *self._adapters)
        clients = max(self._clients)
        requests = max(clients, len(models))
        load = Load(url=url, models=models, clients=clients, requests=requests, seed="warm-up")
        self._load(replace(load, max_tokens=WARM_UP_TOKENS), "warm up")

    def _measure(self, url: str, scenario: Scenario, number: int) -> LoadReport:
        load = Load(
            url=url,
            models=(BASE,) if scenario.kind == "base" else tuple(self._adapters),
            clients=scenario.clients,
            requests=max(NUM_REQUESTS_ALONE, 2 * scenario.clients),
            seed=f"{number}/{scenario.kind}/{scenario.clients}",
        )
        title = f"Lorikeet, round {number + 1}: {LABELS[scenario.kind]}, {scenario.clients} clients"
        return self._load(load, title)

    def _load(self, load: Load, title: str) -> LoadReport:
        with self._stage(title, total=load.requests) as advance:
            return asyncio.run(run_load(load, advance))

    @contextmanager
    def _stage(self, title: str, total: int | None = None) -> Iterator[Callable[[], None]]:
        """Show what is measured; `total` steps, of which the function given tells each."""
        task = self._bar.add_task(title, total=total)
        yield lambda: self._bar.advance(task)
        self._bar.update(task, total=total or 1, completed=total or 1)


def _run_module(name: str, *arguments: str) -> Any:
    """What `python -m ops.bench.<name>` prints in its last line, read as JSON."""
    command = [sys.executable, "-m", f"ops.bench.{name}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MeasurementFailed(f"{name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
