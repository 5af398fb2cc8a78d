"""Compares steps, served tokens and TTFT of two commits, or of two levels of CPU kernels."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ops.lab.bench.frame.measurement_process import run_module
from ops.lab.bench.frame.rounds import Figures, Measure, Sizes, measure_rounds, rounds_finding
from ops.lab.bench.frame.run import (
    Baseline,
    Model,
    Quick,
    Rounds,
    model_and_scratch,
    show,
    sizes_of,
)
from ops.lab.bench.servers.checkouts import benchmarks_of
from ops.lab.bench.servers.model_servers import NO_PROMPT_LOOKUP, lorikeet
from ops.lab.bench.servers.random_adapters import RANKS, make_adapters
from ops.lab.bench.servers.served import scenarios, served
from ops.lab.machine import ROOT
from ops.lab.options import RESULTS, ResultsFolder
from shared.errors import SettingsError
from worker.kernels.cpu.levels import VARIABLE, cpu_flags, usable_levels

NOW = "now"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two compared programs: a checkout, and environment variables of its processes."""

    checkout: Path = ROOT
    environment: Mapping[str, str] = field(default_factory=dict)


def pairs(
    baseline: Baseline = None,
    level: Annotated[
        str | None,
        typer.Option(metavar="LEVEL", help="Kernels of a lesser CPU to compare with, like avx2."),
    ] = None,
    model: Model = None,
    rounds: Rounds = None,
    quick: Quick = False,
    results: ResultsFolder = RESULTS,
) -> None:
    """Compare steps, served tokens and TTFT with another commit or level of CPU kernels."""
    sides = {NOW: Side(), **_others(baseline, level)}
    sizes = sizes_of(Sizes(), rounds, quick=quick)
    with model_and_scratch(model) as (folder, scratch), ExitStack() as stack:
        adapters = make_adapters(folder, scratch / "adapters", RANKS[: sizes.adapters])
        variants = {
            name: _measure_of(
                side, stack.enter_context(benchmarks_of(side.checkout)), folder, adapters, sizes
            )
            for name, side in sides.items()
        }
        found = measure_rounds(variants, sizes.rounds)
    compared = [(NOW, other) for other in sides if other != NOW]
    show(rounds_finding("pairs", found, sizes, compared), folder.name, results)


def _others(baseline: Path | None, level: str | None) -> dict[str, Side]:
    others = {"before": Side(checkout=baseline)} if baseline else {}
    if level:
        known = [each.name for each in usable_levels(cpu_flags())]
        if level not in known:
            raise SettingsError(f"--level {level}: this CPU has the levels {', '.join(known)}")
        others[level] = Side(environment={VARIABLE: level})
    return others


def _measure_of(
    side: Side, root: Path, model: Path, adapters: dict[str, Path], sizes: Sizes
) -> Measure:
    folder = next(iter(adapters.values())).parent
    start = partial(
        lorikeet,
        model,
        adapters,
        worker_flags=[NO_PROMPT_LOOKUP],
        checkout=side.checkout,
        environment=side.environment,
    )
    of_server = served(start, scenarios(adapters, [1, sizes.clients]), sizes, folder.parent)

    def measure(seed: str) -> Figures:
        of_engine = run_module(
            "engine.process", model, folder, root=root, environment=side.environment
        )
        return {**of_engine, **of_server(seed)}

    return measure
