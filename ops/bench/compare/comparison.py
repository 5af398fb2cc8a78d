"""Benchmarks Lorikeet and its peers (PEFT and optionally vLLM), one measurement at a time."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.progress import Progress

from ops.bench.compare.floor import Floor
from ops.bench.compare.queue_latency import QueueReport, measure_queue
from ops.bench.compare.results import LABELS, Loads, Repeat, Results, Scenario
from ops.bench.load.arrivals import Closed
from ops.bench.load.lengths import Length
from ops.bench.load.load import Load
from ops.bench.load.report import LoadReport, run_load
from ops.bench.machine import this_machine
from ops.bench.measurement_process import run_module
from ops.bench.random_adapters import make_adapters
from ops.bench.server_processes import Serving
from ops.bench.servers import BASE, lorikeet, vllm
from ops.local.embedded_redis import start_redis

WARM_UP_TOKENS = Length(8, 8)
NUM_REQUESTS_ALONE = 4
"""Number of requests in a load with one client. Other loads have two requests per client."""


class Comparison:
    """Measures one model served by Lorikeet and by its peers, and shows progress on `bar`."""

    def __init__(
        self,
        model: Path,
        clients: Sequence[int],
        scratch: Path,
        bar: Progress,
        *,
        vllm_venv: Path | None = None,
    ) -> None:
        self._model = model.absolute()
        self._clients = clients
        self._scratch = scratch
        self._bar = bar
        self._vllm_venv = vllm_venv
        with self._stage("make the adapters"):
            self._adapters = make_adapters(model, scratch / "adapters")
        self._scenarios = [
            *(Scenario(kind="base", clients=number) for number in clients),
            *(Scenario(kind="adapters", clients=number) for number in clients),
        ]

    def run(self, num_repeats: int) -> Results:
        """Run all measurements.

        Each of the `num_repeats` rounds measures PEFT, Lorikeet and, if requested, vLLM in turn.

        Raises:
            MeasurementFailed: a measurement's process failed.
            ServerFailed: a server didn't become ready.
        """
        return Results(
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=this_machine(self._vllm_venv),
            model=self._model.name,
            queue=self._queue(),
            bandwidth_bytes_per_s=self._bandwidth(),
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

    def _bandwidth(self) -> float:
        with self._stage("memory bandwidth"):
            return float(run_module("bandwidth"))

    def _floor(self) -> tuple[Floor, ...]:
        with self._stage("GEMM floor"):
            flags = [f"--batch={number}" for number in self._clients]
            found = run_module("compare.floor", str(self._model), *flags)
            return tuple(Floor(**floor) for floor in found)

    def _repeat(self, number: int) -> Repeat:
        return Repeat(
            peft=self._peft(number),
            lorikeet=self._server("Lorikeet", number, self._start_lorikeet),
            vllm=self._server("vLLM", number, self._start_vllm) if self._vllm_venv else (),
        )

    def _peft(self, number: int) -> dict[int, float]:
        with self._stage(f"PEFT, round {number + 1}"):
            flags = [f"--sequences={clients}" for clients in self._clients]
            seed = f"--seed={number}/adapters"
            adapters = str(self._scratch / "adapters")
            found = run_module("compare.peft_peer", str(self._model), adapters, seed, *flags)
            return {int(size): speed for size, speed in found.items()}

    def _start_lorikeet(self, scratch: Path) -> AbstractContextManager[Serving]:
        return lorikeet(self._model, self._adapters, scratch)

    def _start_vllm(self, scratch: Path) -> AbstractContextManager[Serving]:
        assert self._vllm_venv is not None
        return vllm(self._vllm_venv, self._model, self._adapters, scratch)

    def _server(
        self, name: str, number: int, start: Callable[[Path], AbstractContextManager[Serving]]
    ) -> Loads:
        """Measure all scenarios on one server while no other server runs."""
        with ExitStack() as stack:
            with self._stage(f"start {name}, round {number + 1}"):
                folder = stack.enter_context(TemporaryDirectory(dir=self._scratch))
                url = stack.enter_context(start(Path(folder))).url
            self._warm_up(url)
            title = f"{name}, round {number + 1}"
            return tuple((s, self._measure(url, s, number, title)) for s in self._scenarios)

    def _warm_up(self, url: str) -> None:
        """Request a few tokens from each model.

        The number of concurrent clients is the largest in any scenario. These requests keep
        start-up costs out of the later measurements.
        """
        models = (BASE, *self._adapters)
        clients = max(self._clients)
        load = Load(
            url=url,
            models=models,
            arrivals=Closed(clients=clients),
            requests=max(clients, len(models)),
            output_tokens=WARM_UP_TOKENS,
            seed="warm-up",
        )
        self._load(load, "warm up")

    def _measure(self, url: str, scenario: Scenario, number: int, title: str) -> LoadReport:
        load = Load(
            url=url,
            models=(BASE,) if scenario.kind == "base" else tuple(self._adapters),
            arrivals=Closed(clients=scenario.clients),
            requests=max(NUM_REQUESTS_ALONE, 2 * scenario.clients),
            seed=f"{number}/{scenario.kind}/{scenario.clients}",
        )
        return self._load(load, f"{title}: {LABELS[scenario.kind]}, {scenario.clients} clients")

    def _load(self, load: Load, title: str) -> LoadReport:
        with self._stage(title, total=load.requests) as advance:
            return asyncio.run(run_load(load, advance))

    @contextmanager
    def _stage(self, title: str, total: int | None = None) -> Iterator[Callable[[], None]]:
        """Show the progress of a measurement with `total` steps.

        Yields a function to call after each step.
        """
        task = self._bar.add_task(title, total=total)
        yield lambda: self._bar.advance(task)
        self._bar.update(task, total=total or 1, completed=total or 1)
