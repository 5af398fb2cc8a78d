"""Measures a running pool's throughput, undisturbed and beside a busy loop, in rounds."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ops.bench.load.lengths import Length
from ops.bench.load.throughput import tokens_per_s
from ops.bench.probes.neighbour.busy_loop import busy_loop
from ops.bench.server_processes import Serving
from shared.errors import SettingsError

UNDISTURBED = "undisturbed"
SAME_SESSION = "same session"
OTHER_SESSION = "other session"
MEASUREMENTS = (UNDISTURBED, SAME_SESSION, OTHER_SESSION)
LENGTH = Length(16, 96)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of the measurement."""

    rounds: int
    clients: int
    requests_per_client: int = 2
    length: Length = LENGTH
    """Words of a prompt, and tokens of an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """All `MEASUREMENTS`, one after another."""

    core: int
    """Core of the busy loops."""
    tokens_per_s: Mapping[str, float]
    """Output tokens per second, by measurement."""
    core_share: Mapping[str, float]
    """Share of the core's time that the busy loop got, by measurement with a loop."""


def loop_cores() -> list[int]:
    """Return the cores that the busy loops take in turn: the first two that are usable.

    Raises:
        SettingsError: this system can't bind a process to a core.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise SettingsError("neighbour: needs Linux, which can bind a process to a core")
    return sorted(os.sched_getaffinity(0))[:2]


def measure_neighbour(
    serving: Serving, adapters: Sequence[str], sizes: Sizes, print_line: Callable[[str], None]
) -> Iterator[Round]:
    """Yield each round, and print each of its figures once it is known.

    Raises:
        MeasurementFailed: a request or a busy loop failed.
    """
    cores = loop_cores()
    for number in range(sizes.rounds):
        speeds: dict[str, float] = {}
        shares: dict[str, float] = {}
        core = cores[number % len(cores)]
        for name in order(number):
            # Each load has prompts of its own, because the prefix cache knows those of the others.
            seed = f"{number}/{name}"
            if name == UNDISTURBED:
                speeds[name] = _speed(serving, adapters, sizes, seed)
            else:
                with busy_loop(core, own_session=name == OTHER_SESSION) as loop:
                    start_s, start_cpu_s = time.monotonic(), loop.cpu_s()
                    speeds[name] = _speed(serving, adapters, sizes, seed)
                    shares[name] = (loop.cpu_s() - start_cpu_s) / (time.monotonic() - start_s)
            print_line(f"round {number + 1}, core {core}: {name} {speeds[name]:.1f} tokens/s")
        yield Round(core=core, tokens_per_s=speeds, core_share=shares)


def order(number: int) -> Sequence[str]:
    """Return the order of the measurements of a round, counted from 0.

    The order alternates, so that a drift of the machine doesn't favour any measurement. It does so
    every two rounds, so that each core gets both orders.
    """
    return MEASUREMENTS[:: 1 if number // 2 % 2 == 0 else -1]


def _speed(serving: Serving, adapters: Sequence[str], sizes: Sizes, seed: str) -> float:
    return tokens_per_s(
        serving,
        adapters,
        clients=sizes.clients,
        requests=sizes.clients * sizes.requests_per_client,
        length=sizes.length,
        seed=seed,
    )
