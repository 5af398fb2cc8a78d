"""Compares a batch's speed with the speed of clients that each send one request at a time.

The benchmark also measures single requests while a batch runs, and while none runs.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from statistics import median
from typing import Any

import httpx
import orjson

from ops.lab.bench.frame.measurement_process import MeasurementFailed
from ops.lab.bench.frame.rounds import Figures, Sizes, measure_rounds, rounds_finding
from ops.lab.bench.frame.run import Model, Quick, Rounds, model_and_scratch, show, sizes_of
from ops.lab.bench.servers.load_figures import answers_of, closed_load
from ops.lab.bench.servers.model_servers import NO_PROMPT_LOOKUP, lorikeet
from ops.lab.bench.servers.random_adapters import RANKS, make_adapters
from ops.lab.options import RESULTS, ResultsFolder
from ops.load.answers import Answer, ask, client
from ops.load.distributions import fixed
from ops.load.load import Load, body_of
from ops.load.report import percentile, report

LOOP, BATCH, ALONE, BESIDE = "closed loop", "batch", "other requests alone", "beside a batch"
NUM_PROBES = 40
"""Number of requests whose TTFT is measured, one at a time."""
MIN_LINES = 2000
"""Minimum number of a batch's requests, so that the batch outlasts the other requests."""
PROBE_TOKENS = fixed(8)
PAUSE_S = 0.25
"""Seconds of pause before each request whose TTFT is measured."""
POLL_S = 0.1
PATH = "/v1/completions"


def batches(
    model: Model = None,
    rounds: Rounds = None,
    quick: Quick = False,
    results: ResultsFolder = RESULTS,
) -> None:
    """Compare batches with a closed loop, and measure requests with and without a running batch."""
    sizes = sizes_of(Sizes(requests=256, words=56, adapters=5), rounds, quick=quick)
    num_probes = 2 if quick else NUM_PROBES
    with model_and_scratch(model) as (folder, scratch):
        adapters = make_adapters(folder, scratch / "adapters", RANKS[: sizes.adapters])
        flags = [NO_PROMPT_LOOKUP]
        with lorikeet(folder, adapters, scratch, flags, runs_batches=True) as serving:

            def load(seed: str) -> Load:
                return closed_load(
                    serving,
                    list(adapters),
                    clients=sizes.clients,
                    requests=sizes.requests,
                    words=fixed(sizes.words),
                    seed=seed,
                )

            variants = {
                LOOP: lambda seed: _loop(load(seed)),
                BATCH: lambda seed: asyncio.run(_batch(load(seed))),
                ALONE: lambda seed: asyncio.run(_probe(load(seed), num_probes)),
                BESIDE: lambda seed: asyncio.run(_probe_beside(load(seed), num_probes)),
            }
            found = measure_rounds(variants, sizes.rounds)
    pairs = [(BATCH, LOOP), (BESIDE, ALONE)]
    show(rounds_finding("batches", found, sizes, pairs), folder.name, results)


def _loop(load: Load) -> Figures:
    return {"tokens/s": report(load, answers_of(load)).tokens_per_s}


async def _batch(load: Load) -> Figures:
    """Measure a batch from its acceptance to its end."""
    async with client(load.url) as http:
        input_id = await _upload(http, load)
        started = time.perf_counter()
        batch = await _post(http, load, input_id)
        while batch["status"] not in ("completed", "failed", "expired", "cancelled"):
            batch = await _state(http, load, batch)
        taken_s = time.perf_counter() - started
    if batch["request_counts"]["completed"] != load.requests:
        raise MeasurementFailed(f"the batch {batch['status']}: {batch['request_counts']}")
    return {"tokens/s": batch["usage"]["output_tokens"] / taken_s}


async def _probe_beside(load: Load, number: int) -> Figures:
    async with client(load.url) as http, _running_batch(http, load):
        return await _probe(replace(load, seed=f"{load.seed}/probe"), number)


async def _probe(load: Load, number: int) -> Figures:
    """Send single requests one after another, and return their p95 TTFT and median step time."""
    probe, answers = replace(load, output_tokens=PROBE_TOKENS), []
    async with client(load.url) as http:
        for index in range(number):
            await asyncio.sleep(PAUSE_S)
            answers.append(Answer(time.perf_counter()))
            await ask(http, load.url, body_of(probe, index), answers[-1])
            if answers[-1].error:
                raise MeasurementFailed(answers[-1].error)
    ttft_s = [answer.text_s[0] - answer.sent_s for answer in answers]
    return {
        "TTFT p95 in ms": 1000 * percentile(ttft_s, 95),
        "step, ms": 1000 * median(gap for answer in answers for gap in answer.gaps_s),
    }


@asynccontextmanager
async def _running_batch(http: httpx.AsyncClient, load: Load) -> AsyncIterator[None]:
    """Run a batch during the block, and cancel it afterwards."""
    many = replace(load, requests=max(MIN_LINES, 20 * load.requests))
    batch = await _post(http, load, await _upload(http, many))
    while batch["request_counts"]["completed"] == 0:
        batch = await _state(http, load, batch)
    yield
    batch = _checked(await http.post(f"{load.url}/batches/{batch['id']}/cancel"))
    if batch["status"] != "cancelling":
        raise MeasurementFailed(f"the batch was {batch['status']} before the other requests ended")
    while batch["status"] == "cancelling":
        batch = await _state(http, load, batch)


async def _upload(http: httpx.AsyncClient, load: Load) -> str:
    lines = [
        orjson.dumps(
            {"custom_id": str(i), "method": "POST", "url": PATH, "body": _without_stream(load, i)}
        )
        for i in range(load.requests)
    ]
    files = {"file": ("requests.jsonl", b"\n".join(lines))}
    reply = await http.post(f"{load.url}/files", files=files, data={"purpose": "batch"})
    return str(_checked(reply)["id"])


def _without_stream(load: Load, index: int) -> dict[str, Any]:
    return body_of(replace(load, stream=False), index)


async def _post(http: httpx.AsyncClient, load: Load, input_id: str) -> dict[str, Any]:
    body = {"input_file_id": input_id, "endpoint": PATH, "completion_window": "24h"}
    return _checked(await http.post(f"{load.url}/batches", json=body))


async def _state(http: httpx.AsyncClient, load: Load, batch: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(POLL_S)
    return _checked(await http.get(f"{load.url}/batches/{batch['id']}"))


def _checked(reply: httpx.Response) -> dict[str, Any]:
    if not reply.is_success:
        raise MeasurementFailed(f"HTTP {reply.status_code}: {reply.text[:200]}")
    body: dict[str, Any] = reply.json()
    return body
