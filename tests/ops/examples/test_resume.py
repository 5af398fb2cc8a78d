"""The example client: whole answers although front ends die, stop or refuse."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from api_processes import ROOT, api_process, is_healthy
from api_support import ScriptedWorker, free_port, register_models, until

from ops.examples.resume import answer
from shared.protocol.jobs import ClaimedJob, JobState
from shared.protocol.results import Choice, FinishReason
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

pytestmark = pytest.mark.slow

CHAT, STOP = "/v1/chat/completions", FinishReason.STOP
BODY = {"model": "extract", "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**BODY, "stream": True}
WORDS = [f"word{index} \u2028" for index in range(12)]
TEXT = "".join(WORDS)
NUM_STREAMS = 50


@dataclass
class FrontEnds:
    urls: list[str]
    processes: list["subprocess.Popen[str]"]


@pytest.fixture
async def front_ends(redis_url: str, pool: str) -> AsyncIterator[FrontEnds]:
    ports = [free_port(), free_port()]
    with ExitStack() as stack:
        running = [stack.enter_context(api_process(redis_url, pool, port, 0)) for port in ports]
        for port in ports:
            await until(lambda port=port: is_healthy(port))
        yield FrontEnds([f"http://127.0.0.1:{port}" for port in ports], running)


@pytest.fixture
async def worker(queue: Queue, redis: Redis, keys: Keys) -> ScriptedWorker:
    await register_models(Registry(redis, keys))
    return await ScriptedWorker.start(queue)


@dataclass
class Client:
    """A client in a thread of its own, and the chunks that it received."""

    urls: list[str]
    body: dict[str, Any]
    chunks: list[dict[str, Any]] = field(default_factory=list)

    def run(self) -> str:
        options: dict[str, Any] = {"api_key": "none", "give_up_s": 30}
        for chunk in answer(self.urls, CHAT, self.body, **options):
            self.chunks.append(chunk)
        return "".join(text_of(chunk) for chunk in self.chunks)


def text_of(chunk: dict[str, Any]) -> str:
    choice = chunk["choices"][0]
    return (choice.get("delta") or choice.get("message") or {}).get("content") or ""


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(NUM_STREAMS) as pool:
        yield pool


async def publish(worker: ScriptedWorker, jobs: list[ClaimedJob], index: int) -> None:
    finish = STOP if index == len(WORDS) - 1 else None
    for job in jobs:
        await worker.tokens(job, index, (index,), WORDS[index], finish, checkpoint=True)


async def answer_all(worker: ScriptedWorker, jobs: list[ClaimedJob], start: int = 0) -> None:
    for index in range(start, len(WORDS)):
        await publish(worker, jobs, index)
    for job in jobs:
        await worker.finish(job, Choice(text=TEXT, finish=STOP, ids=tuple(range(len(WORDS)))))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_fifty_streams_survive_the_end_of_their_front_end(
    front_ends: FrontEnds,
    worker: ScriptedWorker,
    views: PoolViews,
    threads: ThreadPoolExecutor,
    number: signal.Signals,
) -> None:
    clients = [Client(front_ends.urls, STREAM) for _ in range(NUM_STREAMS)]
    running = [asyncio.wrap_future(threads.submit(client.run)) for client in clients]
    jobs = [await worker.take() for _ in clients]
    for job in jobs:
        await worker.admit(job)
    for index in range(3):
        await publish(worker, jobs, index)
    await until(lambda: all(len(client.chunks) > 1 for client in clients))
    front_ends.processes[0].send_signal(number)
    await answer_all(worker, jobs, 3)
    assert set(await asyncio.gather(*running)) == {TEXT}
    counts = await views.counts()
    assert (counts.waiting, counts.totals[JobState.DONE]) == (0, NUM_STREAMS)


@pytest.mark.parametrize(("body", "number"), [(BODY, signal.SIGKILL), (STREAM, signal.SIGTERM)])
async def test_a_request_whose_response_has_not_started_is_answered_by_its_job(
    front_ends: FrontEnds,
    worker: ScriptedWorker,
    views: PoolViews,
    threads: ThreadPoolExecutor,
    body: dict[str, Any],
    number: signal.Signals,
) -> None:
    running = asyncio.wrap_future(threads.submit(Client(front_ends.urls, body).run))
    job = await worker.take()
    front_ends.processes[0].send_signal(number)
    await answer_all(worker, [job])
    assert await running == TEXT
    assert (await views.counts()).totals[JobState.DONE] == 1


async def test_without_a_front_end_it_gives_up(threads: ThreadPoolExecutor) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.1 s"):
        list(answer([dead], CHAT, BODY, api_key="none", give_up_s=0.1))
    assert time.monotonic() - start < 30


async def test_a_refused_request_is_an_error(
    front_ends: FrontEnds, worker: ScriptedWorker, threads: ThreadPoolExecutor
) -> None:
    client = Client(front_ends.urls, {**BODY, "model": "unknown"})
    with pytest.raises(RuntimeError, match="model_not_found"):
        await asyncio.wrap_future(threads.submit(client.run))


async def test_the_program_prints_the_answer(front_ends: FrontEnds, worker: ScriptedWorker) -> None:
    body = json.dumps(STREAM)
    words = [sys.executable, "-m", "ops.examples.resume", *front_ends.urls, "--body", body]
    running = asyncio.create_task(
        asyncio.to_thread(subprocess.run, words, cwd=ROOT, capture_output=True, text=True)
    )
    await answer_all(worker, [await worker.take()])
    finished = await running
    assert (finished.returncode, finished.stdout) == (0, TEXT)
