"""Loads that Lorikeet and llama.cpp get, and the sizes of the measurement."""

from collections.abc import Sequence
from dataclasses import dataclass

from ops.bench.load.arrivals import Closed
from ops.bench.load.lengths import Length
from ops.bench.load.load import WORKLOAD_LENGTH, Load
from ops.bench.load.report import answers_of, report
from ops.bench.server_processes import Serving
from ops.bench.servers import BASE

_WARM_UP = Length(8, 8)


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
    return _tokens_per_s(serving, [BASE], 1, sizes.requests_alone, sizes.length, seed)


def mixed(serving: Serving, adapters: Sequence[str], sizes: Sizes, seed: str) -> float:
    """Return the output tokens per second of all clients, whose requests take adapters in turn.

    Raises:
        MeasurementFailed: a request failed.
    """
    return _tokens_per_s(serving, adapters, sizes.clients, sizes.clients, sizes.length, seed)


def _tokens_per_s(
    serving: Serving,
    models: Sequence[str],
    clients: int,
    requests: int,
    length: Length,
    seed: str,
) -> float:
    def load(requests: int, length: Length, seed: str) -> Load:
        return Load(
            url=serving.url,
            models=tuple(models),
            arrivals=Closed(clients=clients),
            requests=requests,
            input_words=length,
            output_tokens=length,
            fields=serving.fields,
            reuses_connections=serving.reuses_connections,
            seed=seed,
        )

    answers_of(load(max(clients, len(models)), _WARM_UP, f"{seed}/warm-up"))
    measured = load(requests, length, seed)
    return report(measured, answers_of(measured)).tokens_per_s
