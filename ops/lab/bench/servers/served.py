"""Measures servers one at a time. Each server is started anew for each round."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from ops.lab.bench.frame.rounds import Figures, Measure, Sizes
from ops.lab.bench.servers.load_figures import load_figures
from ops.lab.bench.servers.model_servers import BASE
from ops.lab.server_processes import Serving

Start = Callable[[Path], AbstractContextManager[Serving]]
"""Function that starts a server. Its argument is the folder for the server's files."""
REQUESTS_ALONE = 4
"""Number of requests of a load with one client."""
MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A load: the models that the requests use in turn, and the number of clients."""

    label: str
    models: tuple[str, ...]
    clients: int


def scenarios(adapters: Mapping[str, Path], clients: Sequence[int]) -> list[Scenario]:
    """Return two loads for each number of clients: one of the base model, one of all adapters."""
    kinds = {"base": (BASE,), f"{len(adapters)} adapters": tuple(adapters)}
    return [
        Scenario(label=f"{kind}, {number} client{'s'[: number - 1]}", models=models, clients=number)
        for kind, models in kinds.items()
        for number in clients
    ]


def served(start: Start, loads: Sequence[Scenario], sizes: Sizes, scratch: Path) -> Measure:
    """Return a function that starts a server, and measures it with each load.

    If the server has a worker, the figures include the worker's resident memory.
    """

    def measure(seed: str) -> Figures:
        figures: dict[str, float] = {}
        number = seed.partition("/")[0]  # all servers get the same prompts
        with TemporaryDirectory(dir=scratch) as folder, start(Path(folder)) as serving:
            for load in loads:
                figures |= load_figures(
                    serving,
                    load.models,
                    load.label,
                    clients=load.clients,
                    requests=sizes.requests if load.clients > 1 else REQUESTS_ALONE,
                    words=sizes.words,
                    seed=f"{number}/{load.label}",
                )
            if worker := serving.pids.get("worker"):
                rss_bytes = psutil.Process(worker).memory_info().rss
                figures["resident memory of the worker, MiB"] = rss_bytes / MIB
        return figures

    return measure
