"""Measures updates of an adapter, as trainers send them, with and without running streams."""

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import torch
from safetensors.torch import load_file, save

from ops.lab.bench.frame.measurement_process import MeasurementFailed
from ops.lab.bench.frame.rounds import Figures, Measure, Sizes, measure_rounds, rounds_finding
from ops.lab.bench.frame.run import Model, Quick, Rounds, model_and_scratch, show, sizes_of
from ops.lab.bench.servers.model_servers import BASE, lorikeet
from ops.lab.bench.servers.random_adapters import make_adapters
from ops.lab.bench.trainer_calls import TRAINERS, Trained, Trainer
from ops.lab.options import RESULTS, ResultsFolder
from ops.load.answers import client
from ops.load.report import percentile
from shared.cancel_tasks import cancel_tasks

RANKS = (8,)
"""Rank of the only adapter. Its files take 5 MB if the base model is the demo model."""
TOKENS_PER_STREAM = 256
PROMPT_IDS = [1, 2, 3, 4]
MAX_S = 0.5
"""Upper bound in seconds for the median time from a trainer's first call to the first answer."""


def updates(
    model: Model = None,
    rounds: Rounds = None,
    quick: Quick = False,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure the time from a trainer's first call to the first answer of the new weights.

    The update calls are those of TRL, verl, miles and AReaL. They are measured on an idle server,
    and while streams of the base model run.
    """
    sizes = sizes_of(Sizes(rounds=3, clients=16, requests=20), rounds, quick=quick)
    with model_and_scratch(model) as (folder, scratch):
        adapters = make_adapters(folder, scratch / "adapters", RANKS)
        (source,) = adapters.values()
        shared = scratch / "shared"
        shared.mkdir()
        trained = variants_of(source, shared, 1 + sizes.requests)
        flags = ["--adapter-root", str(shared)]
        with lorikeet(folder, adapters, scratch, flags) as serving:
            url = serving.url.removesuffix("/v1")
            measures = {
                f"{each.name}, {num_streams} streams": _measure(each, url, trained, num_streams)
                for each in TRAINERS
                for num_streams in (0, sizes.clients)
            }
            found = measure_rounds(measures, sizes.rounds)
    size = f"adapters of {len(trained[0].weights) / 1e6:.1f} MB"
    bound = f"the bound of the median is {1000 * MAX_S:.0f} ms on an idle server"
    show(rounds_finding("updates", found, sizes, [], [size, bound]), folder.name, results)


def variants_of(source: Path, root: Path, number: int) -> Sequence[Trained]:
    """Return `number` variants of the adapter in the folder `source`.

    Their weights differ slightly. `root` is the folder that trainer and server share.
    """
    config = json.loads((source / "adapter_config.json").read_text())
    tensors = load_file(source / "adapter_model.safetensors")
    generator = torch.Generator().manual_seed(0)
    return [
        Trained(
            step=step,
            config=config,
            weights=save(
                {
                    name: each + 1e-3 * torch.randn(each.shape, generator=generator).to(each.dtype)
                    for name, each in tensors.items()
                }
            ),
            root=root,
        )
        for step in range(1, number + 1)
    ]


def _measure(trainer: Trainer, url: str, trained: Sequence[Trained], num_streams: int) -> Measure:
    def measure(seed: str) -> Figures:
        return asyncio.run(_updated(trainer, url, trained, num_streams))

    return measure


async def _updated(
    trainer: Trainer, url: str, trained: Sequence[Trained], num_streams: int
) -> Figures:
    """Publish the adapters `trained` one after another, and return the times.

    The first one is published before the measurement.
    """
    async with client(url) as http:
        http.base_url = httpx.URL(url)
        await _publish(trainer, http, trained[0])
        tasks = [asyncio.create_task(_stream(http, number)) for number in range(num_streams)]
        try:
            published, answered = [], []
            for each in trained[1:]:
                times = await _publish(trainer, http, each)
                published.append(times[0])
                answered.append(times[1])
        finally:
            await cancel_tasks(*tasks)
        await _unload_all(http)
    return {
        "first call to first answer, p50, ms": 1000 * percentile(answered, 50),
        "first call to first answer, p99, ms": 1000 * percentile(answered, 99),
        "first call to last response, p50, ms": 1000 * percentile(published, 50),
    }


async def _publish(
    trainer: Trainer, http: httpx.AsyncClient, trained: Trained
) -> tuple[float, float]:
    """Publish an adapter. Return the seconds to the last response and to the first answer.

    Raises:
        MeasurementFailed: the answer names another version.
    """
    started_s = time.perf_counter()
    name = await trainer.publish(http, trained)
    published_s = time.perf_counter() - started_s
    answer = await trainer.ask(http, name, PROMPT_IDS, 1)
    answered_s = time.perf_counter() - started_s
    current = (await http.get(f"/v1/adapters/{name}")).json()["version"]
    if answer["weight_version"] != current:
        raise MeasurementFailed(f"{answer['weight_version']} answered, but {current} was current")
    return published_s, answered_s


async def _unload_all(http: httpx.AsyncClient) -> None:
    for adapter in (await http.get("/v1/adapters")).json()["data"]:
        await http.post("/v1/unload_lora_adapter", json={"lora_name": adapter["id"]})


async def _stream(http: httpx.AsyncClient, number: int) -> None:
    """Request and read one stream after another until cancelled.

    A trainer may pause the server, which may end a stream early.
    """
    body = {"model": BASE, "prompt": f"Stream {number}:", "max_tokens": TOKENS_PER_STREAM}
    body |= {"stream": True, "ignore_eos": True}
    while True:
        async with http.stream("POST", "/v1/completions", json=body) as reply:
            async for _ in reply.aiter_bytes():
                pass
