"""Loads that Lorikeet and llama.cpp get, and the sizes of the measurement."""

from collections.abc import Sequence
from dataclasses import dataclass

from ops.bench.load.lengths import Length
from ops.bench.load.load import WORKLOAD_LENGTH
from ops.bench.load.throughput import tokens_per_s
from ops.bench.server_processes import Serving
from ops.bench.servers import BASE


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of the measurement."""

    rounds: int
    clients: int = 32
    """Clients of the load with adapters."""
    requests_alone: int = 3
    """Requests of the load with one client. The other load has one request for each client."""
    length: Length = WORKLOAD_LENGTH
    """Words of a prompt, and tokens of an answer."""


def alone(serving: Serving, sizes: Sizes, seed: str) -> float:
    """Return the output tokens per second of one client of the base model.

    Raises:
        MeasurementFailed: a request failed.
    """
    return tokens_per_s(
        serving,
        [BASE],
        clients=1,
        requests=sizes.requests_alone,
        length=sizes.length,
        seed=seed,
    )


def mixed(serving: Serving, adapters: Sequence[str], sizes: Sizes, seed: str) -> float:
    """Return the output tokens per second of all clients, whose requests take adapters in turn.

    Raises:
        MeasurementFailed: a request failed.
    """
    return tokens_per_s(
        serving,
        adapters,
        clients=sizes.clients,
        requests=sizes.clients,
        length=sizes.length,
        seed=seed,
    )
