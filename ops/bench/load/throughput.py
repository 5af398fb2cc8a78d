"""Measures the throughput of a server in a closed loop."""

from collections.abc import Sequence

from ops.bench.load.arrivals import Closed
from ops.bench.load.lengths import Length
from ops.bench.load.load import Load
from ops.bench.load.report import answers_of, report
from ops.bench.server_processes import Serving

_WARM_UP = Length(8, 8)


def tokens_per_s(
    serving: Serving,
    models: Sequence[str],
    *,
    clients: int,
    requests: int,
    length: Length,
    seed: str,
) -> float:
    """Return the output tokens per second of all clients, whose requests take `models` in turn.

    `length` is the number of words of a prompt, and of tokens of an answer. Short requests warm the
    server up first.

    Raises:
        MeasurementFailed: a request failed.
    """

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
