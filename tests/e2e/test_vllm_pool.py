"""A pool whose workers have two engines: vLLM, started by `lorikeet up`, and the native one.

The tests run where `make vllm` has installed vLLM.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch
from engines import random_prompt
from peft import PeftModel
from queue_support import eventually
from served_tiny import TinyModels
from servers import Server, lorikeet_up, lorikeet_worker, pid_of
from streams import GreedyStream, check_exact, followed
from tiny import save_adapter, save_tiny_model, tiny_model, tiny_tokenizer

from shared.protocol.capabilities import AdapterKind
from shared.protocol.ids import WorkerId
from shared.store.views.pool_views import PoolViews, WorkerView

pytestmark = pytest.mark.timeout(900)

VENV = Path(__file__).parents[2] / ".venv-vllm"
BASE, PLAIN, DORA = "tiny", "plain", "dora"
HEAD_DIM = 32
"""vLLM's attention on CPUs has no kernels for smaller heads."""
NUM_STREAMS = 16
LENGTH = 400
MAX_NUM_SEQS = 16
PATIENCE_S = 300.0
"""Longest time for vLLM to start on a busy machine."""


class Models(TinyModels):
    """A base that vLLM can compute, an adapter that it serves, and one that it doesn't."""

    @classmethod
    def save(cls, folder: Path) -> "Models":
        save_tiny_model(folder / BASE, head_dim=HEAD_DIM)
        for seed, (name, fields) in enumerate({PLAIN: {}, DORA: {"use_dora": True}}.items()):
            base = tiny_model(head_dim=HEAD_DIM)
            save_adapter(
                folder / name, base=base, seed=seed, target_modules=["q_proj", "o_proj"], **fields
            )
        return cls(folder)

    @property
    def flags(self) -> list[str]:
        model = ["--model", str(self.folder / BASE), "--dtype", "float32", "--device", "cpu"]
        limits = ["--max-num-seqs", str(MAX_NUM_SEQS), "--max-model-len", "512"]
        limits += ["--kv-cache-mb", "64", "--lease-ms", "1500"]
        return [*model, *limits, "--adapter-store", str(self.folder / "store")]

    def adapters(self, *names: str) -> list[str]:
        return ["--adapters", *(f"{name}={self.folder / name}" for name in names)]

    @cached_property
    def references(self) -> dict[str, Any]:
        adapted = {
            name: PeftModel.from_pretrained(
                tiny_model(head_dim=HEAD_DIM), str(self.folder / name)
            ).eval()
            for name in (PLAIN, DORA)
        }
        return {BASE: tiny_model(head_dim=HEAD_DIM), **adapted}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    if not (VENV / ".ready").exists():
        pytest.skip("`make vllm` installs vLLM")
    return Models.save(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run `lorikeet up --engine vllm`, and a native worker, which has the DoRA adapter."""
    folder = tmp_path_factory.mktemp("server")
    flags = [*models.flags, *models.adapters(PLAIN), "--engine", "vllm"]
    native = [*models.flags, *models.adapters(PLAIN, DORA)]
    with (
        lorikeet_up(folder, *flags, start_timeout_s=PATIENCE_S) as server,
        lorikeet_worker(server, folder, *native),
    ):
        yield server


@pytest.mark.slow
async def test_jobs_that_vllm_cannot_serve_run_on_the_native_worker(
    server: Server, views: PoolViews, models: Models
) -> None:
    before = await tokens_by_engine(views)
    streams = [stream_of(DORA, number, length=24) for number in range(12)]
    async with followed(server.api_url, streams):
        pass
    await check_exact(streams, views, models)
    expected = {"native": before["native"] + 12 * 24, "vllm": before["vllm"]}
    await eventually(lambda: have_computed(views, expected))


LABELS = [70, 200, 9]
DOCUMENTS = [f"the bird {number} is small" for number in range(12)]


@pytest.mark.slow
async def test_both_engines_compute_the_scores_of_transformers(
    server: Server, views: PoolViews, models: Models
) -> None:
    before = await tokens_by_engine(views)
    bodies: list[dict[str, Any]] = [
        {"text_1": "which", "text_2": DOCUMENTS, "scoring": "likelihood"},
        {"query": "which", "items": DOCUMENTS, "label_token_ids": LABELS},
    ]
    text_ids = partial(tiny_tokenizer().encode, add_special_tokens=False)
    named = [(name, body) for name in (BASE, PLAIN) for body in bodies] * 4
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:
        replies = await asyncio.gather(
            *(http.post("/v1/score", json={"model": name, **body}) for name, body in named)
        )
    for (name, body), reply in zip(named, replies, strict=True):
        answer = reply.raise_for_status().json()
        for i, document in enumerate(DOCUMENTS):
            ids = text_ids("which" + document)
            rows = models.log_softmax(name, ids)
            if "items" in body:
                assert answer["scores"][i] == pytest.approx(rows[-1, LABELS].exp(), rel=1e-3)
            else:
                context = len(text_ids("which"))
                scores = rows[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[context - 1 :]
                assert answer["data"][i]["score"] == pytest.approx(float(scores.sum()), abs=1e-2)
    after = await tokens_by_engine(views)
    assert all(after[engine] > before[engine] for engine in ("vllm", "native"))


@pytest.mark.long
async def test_streams_of_a_killed_vllm_worker_continue_on_the_native_worker(
    server: Server, views: PoolViews, models: Models
) -> None:
    async with running_on(server, views, "vllm") as (streams, victim):
        processes = psutil.Process(pid_of(victim)).children(recursive=True)
        assert len(processes) >= 2  # the engine core and its worker
        os.kill(pid_of(victim), signal.SIGKILL)
        await eventually(lambda: all_ended(processes))
    await check_exact(streams, views, models)
    server.wait_for_workers(2, PATIENCE_S)


@pytest.mark.long
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
async def test_a_worker_whose_engine_core_dies_leaves_its_streams_to_others(
    server: Server, views: PoolViews, models: Models, signum: signal.Signals
) -> None:
    server.wait_for_workers(2, PATIENCE_S)
    async with running_on(server, views, "vllm") as (streams, victim):
        for process in psutil.Process(pid_of(victim)).children():
            if "EngineCore" in " ".join(process.cmdline()):
                process.send_signal(signum)
    await check_exact(streams, views, models)
    server.wait_for_workers(2, PATIENCE_S)


@pytest.mark.long
async def test_streams_of_a_killed_native_worker_continue_on_vllm(
    server: Server, views: PoolViews, models: Models
) -> None:
    async with running_on(server, views, "native") as (streams, victim):
        os.kill(pid_of(victim), signal.SIGKILL)
    await check_exact(streams, views, models)


@asynccontextmanager
async def running_on(
    server: Server, views: PoolViews, engine: str
) -> AsyncIterator[tuple[list[GreedyStream], WorkerId]]:
    """Start streams, and wait at exit until all have ended.

    Yields the streams, and a worker with this engine that runs some of them, once text has arrived.
    """
    names = [BASE, PLAIN]
    streams = [stream_of(names[i % 2], i, length=LENGTH) for i in range(NUM_STREAMS)]

    async def busy() -> WorkerId | None:
        if sum(stream.is_in_progress for stream in streams) < NUM_STREAMS / 2:
            return None
        found = {view.id: view for view in await views.workers() if view.running}
        return next((id_ for id_ in found if engine_of(found, id_) == engine), None)

    async with followed(server.api_url, streams):
        yield streams, await eventually(busy, within_s=PATIENCE_S)
    jobs = [await views.job(stream.job) for stream in streams if stream.job]
    assert sum(job.try_ > 1 for job in jobs if job) > 0


def stream_of(name: str, number: int, *, length: int) -> GreedyStream:
    return GreedyStream(
        model=name,
        prompt=random_prompt(number, 3 + number),
        num_tokens=length,
        ignore_eos=True,
        asks_logprobs=number % 3 == 0,
    )


def engine_of(workers: dict[WorkerId, WorkerView], worker: WorkerId) -> str:
    serves = workers[worker].info.serves
    return "native" if AdapterKind.DORA in serves.kinds else "vllm"


async def tokens_by_engine(views: PoolViews) -> dict[str, int]:
    """Return the number of tokens that the live worker of each engine has computed."""
    workers = {view.id: view for view in await views.workers()}
    return {engine_of(workers, id_): view.info.tokens_total for id_, view in workers.items()}


async def have_computed(views: PoolViews, expected: dict[str, int]) -> bool:
    return await tokens_by_engine(views) == expected


async def all_ended(processes: Sequence[psutil.Process]) -> bool:
    return not any(process.is_running() for process in processes)
