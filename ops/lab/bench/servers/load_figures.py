"""Sends a load to a running server, and returns its figures."""

import asyncio
from collections.abc import Sequence
from functools import partial

from ops.lab.bench.frame.measurement_process import MeasurementFailed
from ops.lab.bench.frame.rounds import Figures
from ops.lab.server_processes import Serving
from ops.load.answers import Answer
from ops.load.distributions import Closed, Length, fixed
from ops.load.load import Load, send_load
from ops.load.report import report

WARM_UP = fixed(8)


def closed_load(
    serving: Serving,
    models: Sequence[str],
    *,
    clients: int,
    requests: int,
    words: Length,
    seed: str,
) -> Load:
    """Return a load whose clients take `models` in turn.

    Each prompt's number of words is drawn from `words`, and so is each answer's number of tokens.
    """
    return Load(
        url=serving.url,
        models=tuple(models),
        arrivals=Closed(clients=clients),
        requests=requests,
        input_words=words,
        output_tokens=words,
        fields=serving.fields,
        reuses_connections=serving.reuses_connections,
        seed=seed,
    )


def load_figures(
    serving: Serving,
    models: Sequence[str],
    label: str,
    *,
    clients: int,
    requests: int,
    words: int,
    seed: str,
) -> Figures:
    """Return throughput and median TTFT of a closed loop. Short requests warm the server up first.

    Raises:
        MeasurementFailed: a request failed.
    """
    load_of = partial(closed_load, serving, models, clients=clients)
    warm_up = max(clients, len(models))
    answers_of(load_of(requests=warm_up, words=WARM_UP, seed=f"{seed}/warm-up"))
    load = load_of(requests=requests, words=fixed(words), seed=seed)
    found = report(load, answers_of(load))
    return {
        f"{label}, tokens/s": found.tokens_per_s,
        f"{label}, TTFT p50 in ms": 1000 * found.ttft_s.p50,
    }


def answers_of(load: Load) -> list[Answer]:
    """Send the load and return its answers.

    Raises:
        MeasurementFailed: at least one request failed.
    """
    answers = asyncio.run(send_load(load))
    if errors := [answer.error for answer in answers if answer.error]:
        raise MeasurementFailed(f"{len(errors)} requests failed: {errors[0]}")
    return answers
