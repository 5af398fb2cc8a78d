"""Measures the same requests as a closed loop and as a batch, and other requests beside a batch."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import httpx
import orjson

from ops.bench.load.answers import Answer, ask, client
from ops.bench.load.arrivals import Closed
from ops.bench.load.lengths import Length
from ops.bench.load.load import Load, body_of
from ops.bench.load.percentiles import percentile
from ops.bench.load.throughput import tokens_per_s
from ops.bench.measurement_process import MeasurementFailed
from ops.bench.server_processes import Serving

LENGTH = Length(16, 96)
PROBE_TOKENS = Length(8, 8)
PAUSE_S = 0.25
"""Seconds between two requests beside a batch."""
POLL_S = 0.1
PATH = "/v1/completions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of the measurement."""

    rounds: int
    clients: int
    requests: int
    length: Length = LENGTH
    """Words of a prompt, and tokens of an answer."""
    probes: int = 40
    """Requests whose TTFT is measured, one at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """All measurements, one after another."""

    loop_tokens_per_s: float
    batch_tokens_per_s: float
    idle_ttft_s: float
    """95th percentile of the time to the first token of single requests."""
    beside_ttft_s: float
    """The same beside a batch."""
    step_s: float
    """Median time between two tokens of the requests beside the batch."""


def measure_batches(
    serving: Serving, adapters: Sequence[str], sizes: Sizes, print_line: Callable[[str], None]
) -> Iterator[Round]:
    """Yield each round, and print it.

    Raises:
        MeasurementFailed: a request or a batch failed.
    """
    for number in range(sizes.rounds):
        # Both loads have prompts of their own, because the prefix cache knows those of the other.
        measures = [
            lambda seed: _loop(serving, adapters, sizes, seed),
            lambda seed: asyncio.run(_batch(serving, adapters, sizes, seed)),
        ]
        order = (0, 1) if number % 2 == 0 else (1, 0)
        speeds = {kind: measures[kind](f"{number}/{kind}") for kind in order}
        idle, beside = asyncio.run(_probe(serving, adapters, sizes, f"{number}/probe"))
        found = Round(
            loop_tokens_per_s=speeds[0],
            batch_tokens_per_s=speeds[1],
            idle_ttft_s=_ttft_s(idle),
            beside_ttft_s=_ttft_s(beside),
            step_s=median(gap for answer in beside for gap in answer.gaps_s),
        )
        print_line(
            f"round {number + 1}: closed loop {found.loop_tokens_per_s:.1f} tokens/s, batch "
            f"{found.batch_tokens_per_s:.1f}; TTFT p95 {1000 * found.idle_ttft_s:.0f} ms alone, "
            f"{1000 * found.beside_ttft_s:.0f} beside a batch with steps of "
            f"{1000 * found.step_s:.0f} ms"
        )
        yield found


def _loop(serving: Serving, adapters: Sequence[str], sizes: Sizes, seed: str) -> float:
    return tokens_per_s(
        serving,
        adapters,
        clients=sizes.clients,
        requests=sizes.requests,
        length=sizes.length,
        seed=seed,
    )


async def _batch(serving: Serving, adapters: Sequence[str], sizes: Sizes, seed: str) -> float:
    """Return the output tokens per second of a batch, from its acceptance to its end."""
    async with client(serving.url) as http:
        input_id = await _upload(http, serving, _load(serving, adapters, sizes, seed))
        started = time.perf_counter()
        batch = await _post(http, serving, input_id)
        while batch["status"] not in ("completed", "failed", "expired", "cancelled"):
            await asyncio.sleep(POLL_S)
            batch = (await http.get(f"{serving.url}/batches/{batch['id']}")).json()
        taken_s = time.perf_counter() - started
    if batch["request_counts"]["completed"] != sizes.requests:
        raise MeasurementFailed(f"the batch {batch['status']}: {batch['request_counts']}")
    return float(batch["usage"]["output_tokens"] / taken_s)


async def _probe(
    serving: Serving, adapters: Sequence[str], sizes: Sizes, seed: str
) -> tuple[list[Answer], list[Answer]]:
    """Send single requests to the idle server, and then beside a batch that outlasts them."""
    load = replace(_load(serving, adapters, sizes, seed), output_tokens=PROBE_TOKENS, stream=True)
    async with client(serving.url) as http:
        idle = [await _ask(http, load, number) for number in range(sizes.probes)]
        async with _running_batch(http, serving, _load(serving, adapters, sizes, f"{seed}/batch")):
            beside = []
            for number in range(sizes.probes, 2 * sizes.probes):
                await asyncio.sleep(PAUSE_S)
                beside.append(await _ask(http, load, number))
    return idle, beside


@asynccontextmanager
async def _running_batch(
    http: httpx.AsyncClient, serving: Serving, load: Load
) -> AsyncIterator[None]:
    """Run a batch during the block, and cancel it afterwards."""
    many = replace(load, requests=20 * load.requests)
    batch = await _post(http, serving, await _upload(http, serving, many))
    url = f"{serving.url}/batches/{batch['id']}"
    while batch["request_counts"]["completed"] == 0:
        await asyncio.sleep(POLL_S)
        batch = (await http.get(url)).json()
    yield
    batch = (await http.post(f"{url}/cancel")).json()
    if batch["status"] != "cancelling":
        raise MeasurementFailed(f"the batch was {batch['status']} before the other requests ended")
    while batch["status"] == "cancelling":
        await asyncio.sleep(POLL_S)
        batch = (await http.get(url)).json()


async def _ask(http: httpx.AsyncClient, load: Load, number: int) -> Answer:
    answer = Answer(time.perf_counter())
    await ask(http, load.url, body_of(load, number), answer)
    if answer.error:
        raise MeasurementFailed(answer.error)
    return answer


def _load(serving: Serving, adapters: Sequence[str], sizes: Sizes, seed: str) -> Load:
    return Load(
        url=serving.url,
        models=tuple(adapters),
        arrivals=Closed(clients=sizes.clients),
        requests=sizes.requests,
        input_words=sizes.length,
        output_tokens=sizes.length,
        stream=False,
        fields=serving.fields,
        seed=seed,
    )


async def _upload(http: httpx.AsyncClient, serving: Serving, load: Load) -> str:
    lines = [
        orjson.dumps({"custom_id": str(i), "method": "POST", "url": PATH, "body": body_of(load, i)})
        for i in range(load.requests)
    ]
    reply = await http.post(
        f"{serving.url}/files",
        files={"file": ("requests.jsonl", b"\n".join(lines))},
        data={"purpose": "batch"},
    )
    return str(_checked(reply)["id"])


async def _post(http: httpx.AsyncClient, serving: Serving, input_id: str) -> dict[str, Any]:
    body = {"input_file_id": input_id, "endpoint": PATH, "completion_window": "24h"}
    return _checked(await http.post(f"{serving.url}/batches", json=body))


def _checked(reply: httpx.Response) -> dict[str, Any]:
    if not reply.is_success:
        raise MeasurementFailed(f"HTTP {reply.status_code}: {reply.text[:200]}")
    body: dict[str, Any] = reply.json()
    return body


def _ttft_s(answers: Sequence[Answer]) -> float:
    return percentile([answer.text_s[0] - answer.sent_s for answer in answers], 95)
