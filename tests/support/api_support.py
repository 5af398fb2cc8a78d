"""The front end as its tests run it: a real server, and a worker that does what it is told."""

import asyncio
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import httpx
import orjson
import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.context import Context
from api.server import http_config
from shared.errors import JobError
from shared.protocol.events import Admitted, End, Tokens
from shared.protocol.ids import AdapterVersion, WorkerId
from shared.protocol.jobs import ClaimedJob, JobState
from shared.protocol.results import Choice, FinishReason, Result, Usage
from shared.protocol.tools import ToolForm
from shared.protocol.workers import WorkerInfo
from shared.settings import ApiSettings
from shared.store.queue import Queue
from shared.store.queue_replies import Mail
from shared.store.registry import Adapter, BaseModel, Registry

BASE = BaseModel(
    name="tiny/base",
    version=AdapterVersion("base@000000000000"),
    max_model_len=1000,
    source="/models/base",
    created_s=1,
    tool_form=ToolForm.HERMES,
)
ADAPTER = Adapter(
    name="extract",
    version=AdapterVersion("extract@111111111111"),
    digest="1" * 64,
    weights_digest="2" * 64,
    source="/adapters/extract-v1",
    rank=8,
    num_bytes=1024,
    created_s=2,
)
LEASE_MS = 60_000
USAGE = Usage(prompt_tokens=3, completion_tokens=2)
USAGE_BODY = {
    "prompt_tokens": 3,
    "total_tokens": 5,
    "completion_tokens": 2,
    "prompt_tokens_details": {"cached_tokens": 0},
}
DEADLINE_S = 10.0


async def register_models(registry: Registry) -> None:
    await registry.set_base(BASE)
    await registry.add_adapter(ADAPTER)


async def until(condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    """Wait for `condition`; fails when it takes too long."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition didn't come true"
        await asyncio.sleep(0.005)


@dataclass
class ScriptedWorker:
    """Claims jobs through the real queue, and publishes what the test says."""

    queue: Queue
    id: WorkerId

    @classmethod
    async def start(cls, queue: Queue) -> "ScriptedWorker":
        worker = cls(queue, WorkerId(f"test:1:{uuid.uuid4()}"))
        residents = (BASE.version, ADAPTER.version)
        await queue.register(worker.id, lease_ms=LEASE_MS, info=worker_info(), residents=residents)
        return worker

    async def take(self) -> ClaimedJob:
        """The next job, as soon as there is one."""
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            claim = await self.queue.claim(
                self.id,
                sequences=64,
                tokens=100_000,
                steal_ms=250,
                max_cold=1,
                residents=(BASE.version, ADAPTER.version),
            )
            if claim.jobs:
                return claim.jobs[0]
            await self.queue.wait(self.id, timeout_s=0.5)
        raise AssertionError("no job came")

    async def admit(self, job: ClaimedJob) -> None:
        event = Admitted(job=job.job.id, try_=job.try_, prompt_tokens=USAGE.prompt_tokens)
        await self.queue.publish(self.id, {job.job.reply_to: [event]})

    async def tokens(
        self,
        job: ClaimedJob,
        index: int,
        ids: Sequence[int],
        text: str,
        finish: FinishReason | None = None,
        *,
        choice: int = 0,
        is_lost: bool = False,
        checkpoint: bool = False,
    ) -> None:
        """Publish tokens of a choice; a lost event reaches the checkpoints at most."""
        event = Tokens(
            job=job.job.id,
            try_=job.try_,
            choice=choice,
            index=index,
            ids=tuple(ids),
            text=text,
            finish=finish,
        )
        events = {} if is_lost else {job.job.reply_to: [event]}
        await self.queue.publish(self.id, events, [event] if checkpoint else [])

    async def finish(self, job: ClaimedJob, *choices: Choice) -> None:
        """End the job well."""
        end = End(job=job.job.id, try_=job.try_, state=JobState.DONE, usage=USAGE)
        result = Result(job=job.job.id, state=JobState.DONE, choices=choices, usage=USAGE)
        await self.queue.finish(self.id, end, result)

    async def fail(
        self, job: ClaimedJob, error: JobError, state: JobState = JobState.FAILED
    ) -> None:
        """End the job with an error."""
        end = End(job=job.job.id, try_=job.try_, state=state, error=error)
        result = Result(job=job.job.id, state=state, error=error)
        await self.queue.finish(self.id, end, result)

    async def answer(self, job: ClaimedJob, text: str = "hello", *, choice: int = 0) -> None:
        """Show a whole answer of two tokens and end the job."""
        await self.admit(job)
        await self.tokens(job, 0, (1,), text[:2], choice=choice)
        await self.tokens(job, 1, (2,), text[2:], FinishReason.STOP, choice=choice)
        await self.finish(job, Choice(text=text, finish=FinishReason.STOP, ids=(1, 2)))

    async def mail(self) -> Mail:
        """The next message that isn't about new jobs."""
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            mail = await self.queue.wait(self.id, timeout_s=0.5)
            if mail and mail.kind != "job":
                return mail
        raise AssertionError("no message came")


def worker_info() -> WorkerInfo:
    return WorkerInfo(
        model=BASE.name,
        device="cpu",
        dtype="float32",
        version="0",
        max_num_seqs=64,
        kv_blocks=100,
        kv_blocks_free=90,
        weight_bytes=270,
        kv_bytes=200,
        adapter_bytes=30,
        adapter_bytes_max=40,
        host_adapter_bytes=50,
        host_adapter_bytes_max=60,
        tokens_total=7,
        counters={"preemptions": 3, "loads": 4, "load_ms": 1500, "evictions": 2, "spreads": 5},
    )


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class RunningApp:
    """An app that listens on `url`."""

    app: FastAPI
    url: str
    server: uvicorn.Server

    @property
    def context(self) -> Context:
        context: Context = self.app.state.context
        return context


@asynccontextmanager
async def running_app(settings: ApiSettings) -> AsyncIterator[RunningApp]:
    """A real server in this event loop."""
    app = create_app(settings)
    listener = socket.create_server(("127.0.0.1", 0))
    server = _Server(http_config(app, settings, drain_s=1))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    port = listener.getsockname()[1]
    await until(lambda: server.started)
    try:
        yield RunningApp(app, f"http://127.0.0.1:{port}", server)
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client that calls the started app directly, without a network."""
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


def sse_text(response: httpx.Response) -> str:
    """The text of a chat stream's first choice."""
    data = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    chunks = [orjson.loads(event) for event in data if event not in ("[DONE]", ": keep-alive")]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk.get("choices")]
    return "".join(delta.get("content", "") for delta in deltas)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
