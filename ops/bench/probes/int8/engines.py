"""Measures the engine alone, in a process of its own, with each form of the weights."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.bench.measurement_process import run_module
from ops.bench.probes.int8.forms import FORMS

PROCESS = "probes.int8.engine_process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """The engine alone, in a process of its own."""

    ms: Mapping[str, float]
    """Durations in milliseconds by the name of what was measured."""
    weight_bytes: int
    rss_bytes: int
    """Resident memory of the process once the model is loaded."""


Engines = Mapping[str, Engine]
"""By form of the weights."""


def measure_engines(
    number: int,
    model: Path,
    adapters: Path,
    print_line: Callable[[str], None],
    kernels: Path | None = None,
) -> Engines:
    """Measure both forms in round `number`, and print each one's figures once they are known.

    Args:
        number: number of the round, which decides the order.
        model: folder of the base model.
        adapters: folder of the adapters' folders.
        print_line: prints a line.
        kernels: folder of compiled kernels, if they aren't those of this CPU.

    Raises:
        MeasurementFailed: a process failed.
    """
    found = {}
    for form in in_turn(number):
        arguments = [str(model), str(adapters), form, *([str(kernels)] if kernels else [])]
        measured: dict[str, Any] = run_module(PROCESS, *arguments)
        found[form] = Engine(**measured)
        figures = ", ".join(f"{name} {ms:.1f} ms" for name, ms in found[form].ms.items())
        print_line(f"round {number + 1}: {form} {figures}")
    return found


def in_turn(number: int) -> Iterator[str]:
    """Yield the forms in an order that alternates, so that a drift favours neither of them."""
    yield from FORMS[:: 1 if number % 2 == 0 else -1]
