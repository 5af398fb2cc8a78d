"""A real server and a scripted worker for tests of the front end."""

import asyncio
import socket
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import httpx
import uvicorn
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from queue_support import INFO, make_adapter, tokens
from queue_support import eventually as until
from sse_events import sse_events

from api.app import create_app
from api.follow.reply_hub import ReplyHub
from api.metrics.metrics import Metrics
from api.metrics.pool_metrics import PoolSnapshot
from api.pools.pool import Pool
from api.pools.pool_status import PoolReports
from api.server import http_config
from ops.local.ports import free_port as free_port
from shared.errors import JobError
from shared.protocol.adapters import BaseModel
from shared.protocol.capabilities import EVERYTHING, Capabilities
from shared.protocol.events import Admitted, End
from shared.protocol.ids import AdapterVersion, WorkerId
from shared.protocol.jobs import ClaimedJob, JobState
from shared.protocol.queue_replies import Mail, MailKind
from shared.protocol.results import Choice, FinishReason, Result, Usage
from shared.protocol.tools import ToolForm
from shared.protocol.workers import WorkerInfo
from shared.settings import ApiSettings
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.views.pool_views import QueueCounts

BASE = BaseModel(
    name="tiny/base",
    version=AdapterVersion("base@000000000000"),
    max_model_len=1000,
    source="/models/base",
    created_s=1,
    embedding_size=2,
    tool_form=ToolForm.HERMES,
)
ADAPTER = make_adapter(
    "extract@111111111111",
    digest="1" * 64,
    weights_digest="2" * 64,
    source="/adapters/extract-v1",
    num_bytes=1024,
    created_s=2,
)
LEASE_MS = 60_000
T = TypeVar("T")
USAGE = Usage(prompt_tokens=3, completion_tokens=2)
USAGE_BODY = {
    "prompt_tokens": 3,
    "total_tokens": 5,
    "completion_tokens": 2,
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0},
}
DEADLINE_S = 60.0


async def register_models(registry: Registry) -> None:
    await registry.set_base(BASE)
    await registry.add_adapter(ADAPTER)


@dataclass
class ScriptedWorker:
    """Worker that claims jobs from the real queue and publishes what the test asks for."""

    queue: Queue
    id: WorkerId
    residents: tuple[AdapterVersion, ...]
    claimed: list[ClaimedJob] = field(default_factory=list)
    """Jobs that were claimed together with another one, and not taken yet."""

    @classmethod
    async def start(
        cls,
        queue: Queue,
        serves: Capabilities = EVERYTHING,
        residents: tuple[AdapterVersion, ...] = (BASE.version, ADAPTER.version),
    ) -> "ScriptedWorker":
        worker = cls(queue, WorkerId(f"test:1:{uuid.uuid4()}"), residents)
        info = replace(worker_info(), serves=serves)
        await queue.register(worker.id, lease_ms=LEASE_MS, info=info, residents=residents)
        return worker

    async def take(self) -> ClaimedJob:
        end = time.monotonic() + DEADLINE_S
        while not self.claimed and time.monotonic() < end:
            claim = await self.queue.claim(
                self.id,
                sequences=64,
                tokens=100_000,
                steal_ms=250,
                max_cold=1,
                residents=self.residents,
            )
            self.claimed += claim.jobs
            if not claim.jobs:
                await self.queue.wait(self.id, timeout_s=0.5)
        assert self.claimed, "no job arrived"
        return self.claimed.pop(0)

    async def begin(self, text: str, *, checkpoint: bool = False) -> ClaimedJob:
        """Claim the next job and publish its first token.

        Call it while the request is sent, because a stream's headers wait for the first token.
        """
        job = await self.take()
        await self.tokens(job, 0, (1,), text, checkpoint=checkpoint)
        return job

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
        checkpoint: bool = False,
    ) -> None:
        event = tokens(job.job, index, ids, text, finish=finish, choice=choice, try_=job.try_)
        checkpoints = [event] if checkpoint else []
        await self.queue.publish(self.id, {job.job.reply_to: [event]}, checkpoints)

    async def finish(self, job: ClaimedJob, *choices: Choice) -> None:
        end = End(job=job.job.id, try_=job.try_, state=JobState.DONE, usage=USAGE)
        result = Result(job=job.job.id, state=JobState.DONE, choices=choices, usage=USAGE)
        await self.queue.finish(self.id, end, result)

    async def fail(
        self, job: ClaimedJob, error: JobError, state: JobState = JobState.FAILED
    ) -> None:
        end = End(job=job.job.id, try_=job.try_, state=state, error=error)
        result = Result(job=job.job.id, state=state, error=error)
        await self.queue.finish(self.id, end, result)

    async def answer(self, job: ClaimedJob, text: str = "hello", *, choice: int = 0) -> None:
        """Publish a complete answer of two tokens and end the job."""
        await self.admit(job)
        await self.tokens(job, 0, (1,), text[:2], choice=choice)
        await self.tokens(job, 1, (2,), text[2:], FinishReason.STOP, choice=choice)
        await self.finish(job, Choice(text=text, finish=FinishReason.STOP, ids=(1, 2)))

    async def sent(self, request: Coroutine[Any, Any, T]) -> tuple["asyncio.Task[T]", ClaimedJob]:
        """Start to send a request, claim its job, and return both."""
        sending = asyncio.create_task(request)
        return sending, await self.take()

    async def serve(
        self, request: Coroutine[Any, Any, T], text: str = "hello"
    ) -> tuple[T, ClaimedJob]:
        """Send a request, answer its job with `text`, and return the reply and the job."""
        sent, job = await self.sent(request)
        await self.answer(job, text)
        return await sent, job

    async def mail(self) -> Mail:
        """Wait for the next message other than one about new jobs."""
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            mail = await self.queue.wait(self.id, timeout_s=0.5)
            if mail and mail.kind is not MailKind.JOB:
                return mail
        raise AssertionError("no message arrived")


def worker_info() -> WorkerInfo:
    return replace(
        INFO,
        model=BASE.name,
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
        counters={
            "preemptions": 3,
            "forced_tokens": 2,
            "drafted_tokens": 6,
            "accepted_tokens": 1,
            "loads": 4,
            "load_ms": 1500,
            "evictions": 2,
            "spreads": 5,
        },
    )


def queue_counts(
    waiting_by_version: Mapping[AdapterVersion, int] | None = None, **changes: Any
) -> QueueCounts:
    waiting = waiting_by_version or {}
    fields: dict[str, Any] = {
        "waiting": sum(waiting.values()),
        "waiting_by_version": waiting,
        "totals": {},
        **dict.fromkeys(("retried", "released", "workers_lost"), 0),
    }
    return QueueCounts(**{**fields, **changes})


class _Server(uvicorn.Server):
    """Server that stops at once. uvicorn's own looks ten times a second whether it should."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stopping = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self.on_tick(0)  # sets the headers of all responses
        await self.stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await asyncio.wait_for(self._wait_tasks_to_complete(), DEADLINE_S)
        await self.lifespan.shutdown()


@dataclass
class RunningApp:
    """App that listens on `url`."""

    app: FastAPI
    url: str
    server: _Server

    @property
    def pool(self) -> Pool:
        pool: Pool = self.app.state.pools.all[0]
        return pool


@asynccontextmanager
async def running_app(settings: ApiSettings, **options: Any) -> AsyncIterator[RunningApp]:
    """Run a real server in this event loop. `options` are those of `create_app`."""
    app = create_app(settings, **options)
    listener = socket.create_server(("127.0.0.1", 0))
    server = _Server(http_config(app, settings))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    port = listener.getsockname()[1]
    await until(lambda: server.started)
    try:
        yield RunningApp(app, f"http://127.0.0.1:{port}", server)
    finally:
        for pool in app.state.pools.all:
            pool.part(PoolReports).feed.stop()
            pool.part(ReplyHub).stop()
        server.stopping.set()
        await task


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Start the app and return a client that calls it without a network."""
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


def sse_text(response: httpx.Response) -> str:
    """Return the text of the first choice of a chat stream."""
    chunks = [event.json for event in sse_events(response.text) if event.data != "[DONE]"]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk.get("choices")]
    return "".join(delta.get("content", "") for delta in deltas)


def error_of(reply: httpx.Response) -> tuple[int, str, str | None]:
    """Return the status of an error response, and `code` and `param` of its body."""
    body = reply.json()
    error = body if isinstance(body["error"], str) else body["error"]  # Ollama's is a string
    return reply.status_code, error["code"], error["param"]


async def paged(http: httpx.AsyncClient, url: str, limit: int, **options: Any) -> list[Any]:
    found: list[Any] = []
    params = {**options.pop("params", {}), "limit": limit}
    while True:
        page = (await http.get(url, params=params, **options)).json()
        assert len(page["data"]) <= limit
        found += page["data"]
        if not page["has_more"]:
            return found
        params["after"] = page["last_id"]


def metric_samples(
    metrics: Metrics, pool: PoolSnapshot | None = None
) -> dict[tuple[str, ...], float]:
    """Return the value of each sample by its name and the values of its labels."""
    families = text_string_to_metric_families(metrics.exposition(pool).decode())
    return {(s.name, *s.labels.values()): s.value for f in families for s in f.samples}


async def waiting_job(server: RunningApp) -> str:
    """Wait until one job is in the queue, and return its id."""
    async with asyncio.timeout(DEADLINE_S):
        while not (await server.pool.views.counts()).waiting:
            pass
    (job_id,) = server.pool.part(ReplyHub)._inboxes
    return job_id
