"""Measures a pool's throughput, undisturbed and while a busy loop of lowest priority runs."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ops.lab.bench.busy_loop import busy_loop
from ops.lab.bench.frame.rounds import Figures, Measure, Sizes, measure_rounds, rounds_finding
from ops.lab.bench.frame.run import Model, Quick, Rounds, model_and_scratch, show, sizes_of
from ops.lab.bench.servers.load_figures import load_figures
from ops.lab.bench.servers.model_servers import NO_PROMPT_LOOKUP, lorikeet
from ops.lab.bench.servers.random_adapters import RANKS, make_adapters
from ops.lab.options import RESULTS, ResultsFolder
from ops.local.precedence import take_precedence
from shared.errors import SettingsError

UNDISTURBED = "undisturbed"
SAME_SESSION = "beside a busy loop in the same session"
OTHER_SESSION = "beside a busy loop in another session"
AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")


def neighbour(
    model: Model = None,
    rounds: Rounds = None,
    quick: Quick = False,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure how much throughput is lost while a busy loop of lowest priority runs on one core."""
    sizes = sizes_of(Sizes(words=64), rounds, quick=quick)
    cores = loop_cores()
    take_precedence()  # as `lorikeet up` does
    with model_and_scratch(model) as (folder, scratch):
        adapters = make_adapters(folder, scratch / "adapters", RANKS[: sizes.adapters])
        with lorikeet(folder, adapters, scratch, [NO_PROMPT_LOOKUP]) as serving:

            def load(seed: str) -> Figures:
                return load_figures(
                    serving,
                    list(adapters),
                    f"{len(adapters)} adapters, {sizes.clients} clients",
                    clients=sizes.clients,
                    requests=sizes.requests,
                    words=sizes.words,
                    seed=seed,
                )

            variants: dict[str, Measure] = {
                UNDISTURBED: load,
                SAME_SESSION: _beside(load, cores, own_session=False),
                OTHER_SESSION: _beside(load, cores, own_session=True),
            }
            found = measure_rounds(variants, sizes.rounds)
    autogroup = f"the kernel's autogroup feature is {'on' if is_autogroup_on() else 'off'}"
    pairs = [(SAME_SESSION, UNDISTURBED), (OTHER_SESSION, UNDISTURBED)]
    show(rounds_finding("neighbour", found, sizes, pairs, [autogroup]), folder.name, results)


def loop_cores() -> list[int]:
    """Return the cores that the busy loops use in turn: the first two usable ones.

    Raises:
        SettingsError: this system can't bind a process to a core.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise SettingsError("neighbour: needs Linux, which can bind a process to a core")
    return sorted(os.sched_getaffinity(0))[:2]


def is_autogroup_on(setting: Path = AUTOGROUP) -> bool:
    """Return whether the kernel's autogroup feature is on.

    The file `setting` contains 1 if it is on. Kernels without the feature don't have the file.
    """
    return setting.exists() and setting.read_text().strip() == "1"


def _beside(load: Callable[[str], Figures], cores: Sequence[int], *, own_session: bool) -> Measure:
    """Return a function that measures `load` while a busy loop runs on one of `cores`.

    The function adds a figure: the share of the core's time that the loop gets.
    """

    def measure(seed: str) -> Figures:
        number = int(seed.partition("/")[0])
        with busy_loop(cores[number % len(cores)], own_session=own_session) as loop:
            start_s, start_cpu_s = time.monotonic(), loop.cpu_s()
            figures = load(seed)
            share = (loop.cpu_s() - start_cpu_s) / (time.monotonic() - start_s)
        return {**figures, "the loop's share of its core, %": 100 * share}

    return measure
