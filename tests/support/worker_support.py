"""Clients and workers for the tests of the worker."""

import asyncio
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import orjson
from scripted_engine import BASE, ScriptedEngine, expected_ids, expected_text, scripted_model

from shared.cancel_tasks import cancel_tasks
from shared.errors import RedisUnavailable
from shared.protocol.events import End, Event, Retry, Tokens
from shared.protocol.ids import AdapterVersion, ApiId, JobId
from shared.protocol.jobs import Endpoint, Job, JobState, SamplingParams
from shared.protocol.limits import Limits
from shared.protocol.results import Result
from shared.settings import WorkerSettings
from shared.store.connection import Redis
from shared.store.keys import Keys
from shared.store.queue import Queue
from shared.store.registry import Adapter, Registry
from shared.store.token_streams import ReplyReader
from worker.served_model import ServedModel
from worker.service import Worker

DEADLINE_S = 20.0
LIMITS = Limits(
    max_waiting=1000, max_waiting_adapter=1000, max_waiting_tenant=1000, retain_ms=60_000
)
PROGRAM = Path(__file__).parent / "scripted_engine.py"


async def until(condition: Callable[[], Any], deadline_s: float = DEADLINE_S) -> None:
    """Wait for `condition`, a plain or async function; fails when it takes too long."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if await value if isinstance(value, Awaitable) else value:
            return
        assert time.monotonic() < end, "the condition didn't come true"
        await asyncio.sleep(0.005)


async def has_workers(queue: Queue, count: int) -> bool:
    """Whether so many workers are registered."""
    return len(await queue.workers()) == count


async def register(registry: Registry, version: AdapterVersion, source: str | None = None) -> None:
    """Register a scripted adapter, as another worker would."""
    name, digest = version.split("@")
    await registry.add_adapter(
        Adapter(
            name=name,
            version=version,
            digest=digest,
            weights_digest=digest,
            source=source or digest,
            rank=8,
            num_bytes=1,
            created_s=int(time.time()) + 1,  # as a worker that started after all here
        )
    )


async def residents(queue: Queue) -> set[AdapterVersion]:
    """What any worker holds."""
    return {version for worker in await queue.workers() for version in worker.residents}


class Client:
    """An API process: enqueues jobs and gathers their events."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self.api = ApiId(f"api-{uuid.uuid4().hex}")
        self.queue = Queue(redis, keys)
        self.events: dict[JobId, list[Event]] = defaultdict(list)
        self._reader = ReplyReader(redis, keys, self.api)

    async def read(self) -> None:
        """Gather events until cancelled, whatever happens to Redis."""
        while True:
            try:
                for event in await self._reader.read():
                    self.events[event.job].append(event)
            except RedisUnavailable:
                await asyncio.sleep(0.01)

    def make(
        self,
        prompt: str | tuple[int, ...] = "hello",
        *,
        version: AdapterVersion = BASE.version,
        seed: int = 1,
        max_tokens: int | None = 5,
        n: int = 1,
        stop: tuple[str, ...] = (),
        cost: int = 10,
        **changes: Any,
    ) -> Job:
        """A completion job, not yet enqueued."""
        fields: dict[str, Any] = {
            "id": JobId(uuid.uuid4().hex),
            "endpoint": Endpoint.COMPLETIONS,
            "model": "any",
            "version": version,
            "sampling": SamplingParams(seed=seed, max_tokens=max_tokens, n=n, stop=stop),
            "created_s": int(time.time()),
            "deadline_ms": 60_000,
            "cost": cost,
            "reply_to": self.api,
            "prompts": () if "messages" in changes else (prompt,),
        }
        return Job(**{**fields, **changes})

    async def send(self, *args: Any, **kwargs: Any) -> Job:
        """Make a job and enqueue it."""
        job = self.make(*args, **kwargs)
        await self.queue.enqueue(job, LIMITS)
        return job

    async def end_of(self, job: Job, deadline_s: float = DEADLINE_S) -> End:
        """The job's final event, once it is there."""
        await until(lambda: self._find_end(job), deadline_s)
        end = self._find_end(job)
        assert end is not None
        return end

    async def result_of(self, job: Job, deadline_s: float = DEADLINE_S) -> Result:
        """What is kept of the job, once it has ended."""
        await self.end_of(job, deadline_s)
        result = await self.queue.result(job.id)
        assert result is not None
        return result

    async def until_shown(self, job: Job, count: int) -> None:
        """Wait until `count` tokens of the job were shown."""
        await until(lambda: sum(len(t.ids) for t in self.tokens_of(job)) >= count)

    def tokens_of(self, job: Job) -> list[Tokens]:
        return [event for event in self.events[job.id] if isinstance(event, Tokens)]

    def seamless(
        self, job: Job, *, may_repeat: bool = False
    ) -> dict[int, tuple[tuple[int, ...], str]]:
        """Ids and text of each choice; fails if the events have a gap, an overlap or stragglers.

        With `may_repeat` an event may come twice, which every reader must take.
        """
        answers: dict[int, tuple[tuple[int, ...], str]] = {}
        finished: set[int] = set()
        try_ = 0
        for event in self.events[job.id]:
            assert event.try_ >= try_, "an event of an earlier try"
            try_ = event.try_ + 1 if isinstance(event, Retry) else event.try_
            if isinstance(event, Tokens):
                ids, text = answers.get(event.choice, ((), ""))
                if may_repeat and event.index + len(event.ids) <= len(ids):
                    assert ids[event.index :][: len(event.ids)] == event.ids
                    continue
                assert event.index == len(ids), "a gap or an overlap"
                assert event.choice not in finished
                answers[event.choice] = (ids + event.ids, text + event.text)
                if event.finish:
                    finished.add(event.choice)
        assert [type(e) for e in self.events[job.id]].count(End) == 1
        assert isinstance(self.events[job.id][-1], End)
        return answers

    def _find_end(self, job: Job) -> End | None:
        return next((e for e in self.events[job.id] if isinstance(e, End)), None)


@asynccontextmanager
async def flood(client: Client, version: AdapterVersion, number: int) -> AsyncIterator[list[Job]]:
    """So many jobs of one version at any time, all of one tenant; gives those sent so far."""
    sent: list[Job] = []

    async def keep_sending() -> None:
        while True:
            job = await client.send(version=version, tenant="flood", seed=len(sent), max_tokens=10)
            sent.append(job)
            assert (await client.end_of(job)).state is JobState.DONE

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(keep_sending()) for _ in range(number)]
        await until(lambda: len(sent) > number)
        yield sent
        await cancel_tasks(*tasks)


@asynccontextmanager
async def running(
    redis: Redis, engine: ScriptedEngine, pool: str, **settings: Any
) -> AsyncIterator[Worker]:
    """A worker over a scripted engine, as `running_with` runs it."""
    chosen = WorkerSettings(model="scripted", pool=pool, **settings)
    async with running_with(redis, chosen, scripted_model(engine)) as worker:
        yield worker


@asynccontextmanager
async def running_with(
    redis: Redis, settings: WorkerSettings, served: ServedModel
) -> AsyncIterator[Worker]:
    """A worker in this process; it is stopped in the end and must leave without a fault."""
    worker = Worker(settings, redis, served)
    queue = Queue(redis, Keys(settings.pool))
    before = len(await queue.workers())
    async with asyncio.TaskGroup() as group:
        task = group.create_task(worker.run())
        await until(lambda: has_workers(queue, before + 1))
        try:
            yield worker
        finally:
            worker.stop()
            worker.stop()
        async with asyncio.timeout(DEADLINE_S):
            await task


def all_seamless(client: Client, jobs: Sequence[Job], *, may_repeat: bool = False) -> None:
    """Fail unless each job's events add up to exactly the answers that it must have."""
    for job in jobs:
        sampling = job.sampling
        assert sampling.max_tokens is not None
        answers = {}
        for choice in range(job.num_choices):
            number = choice % sampling.n
            ids = expected_ids(sampling.seed, number, sampling.max_tokens, job.version)
            answers[choice] = (tuple(ids), expected_text(ids))
        assert client.seamless(job, may_repeat=may_repeat) == answers


@contextmanager
def worker_process(
    redis_url: str, pool: str, *, step_s: float, **settings: Any
) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker in a process of its own; it is killed in the end if it still runs."""
    chosen = {"redis_url": redis_url, "pool": pool, "model": "scripted", **settings}
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), orjson.dumps(chosen).decode(), str(step_s)]
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
