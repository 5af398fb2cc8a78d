"""Clients and workers for the worker's tests."""

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from queue_support import LIMITS, make_adapter, make_job
from queue_support import eventually as until
from scripted_engine import BASE, ScriptedEngine, expected_ids, expected_text, scripted_model
from scripted_files import Files

from shared.cancel_tasks import cancel_tasks
from shared.errors import RedisUnavailable
from shared.protocol.adapters import Adapter
from shared.protocol.events import End, Event, Retry, Tokens
from shared.protocol.ids import AdapterVersion, ApiId, JobId
from shared.protocol.jobs import Job, JobState, SamplingParams
from shared.protocol.results import Result
from shared.settings import WorkerSettings
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.jobs.token_streams import ReplyReader
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews
from worker.engine_simulated.adapters import SimulatedAdapter, SimulatedHostMemory
from worker.served_model import ServedModel
from worker.service import Worker

DEADLINE_S = 60.0


async def has_workers(views: PoolViews, count: int) -> bool:
    return len(await views.workers()) == count


def entry_of(version: AdapterVersion, source: str | None = None) -> Adapter:
    """Return the registry's entry of a scripted adapter, newer than all that workers register."""
    digest = version.partition("@")[2]
    fields = {"digest": digest, "weights_digest": digest, "source": source or digest}
    return make_adapter(version, **fields, created_s=int(time.time()) + 1)


class Client:
    """Front end that enqueues jobs and collects their events, and starts workers for them."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self.redis, self.keys = redis, keys
        self.api = ApiId(f"api-{uuid.uuid4().hex}")
        self.queue, self.views = Queue(redis, keys), PoolViews(redis, keys)
        self.registry = Registry(redis, keys)
        self.events: dict[JobId, list[Event]] = defaultdict(list)
        self._reader = ReplyReader(redis, keys, self.api)
        self.engine = ScriptedEngine(step_s=0.002)
        self.files, self.host = Files(), SimulatedHostMemory(1 << 20)

    def worker(
        self,
        engine: ScriptedEngine | None = None,
        read: Callable[[str, str], SimulatedAdapter] | None = None,
        *,
        max_num_seqs: int = 64,
        **settings: Any,
    ) -> AbstractAsyncContextManager[Worker]:
        """Run a worker in this process; see `running_with`.

        By default it reads `files`, and has `engine` and `host`; another engine has host memory of
        its own.
        """
        served = scripted_model(
            engine or self.engine,
            read or self.files,
            None if engine else self.host,
            max_num_seqs=max_num_seqs,
        )
        chosen = WorkerSettings(model="scripted", pool=self.keys.pool, **settings)
        return running_with(self.redis, chosen, served)

    async def register(self, version: AdapterVersion, source: str | None = None) -> None:
        """Register a scripted adapter in the pool, as another worker would."""
        await self.registry.add_adapter(entry_of(version, source))

    async def residents(self) -> set[AdapterVersion]:
        """Return the versions that are resident on at least one worker."""
        return {version for worker in await self.views.workers() for version in worker.residents}

    @asynccontextmanager
    async def reading(self) -> AsyncIterator["Client"]:
        """Collect the events of jobs inside the context."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self._read())
            yield self
            await cancel_tasks(task)

    async def _read(self) -> None:
        """Collect events until cancelled; retry while Redis is unavailable."""
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
        ignore_eos: bool = False,
        **changes: Any,
    ) -> Job:
        """Return a completion job without enqueueing it."""
        fields: dict[str, Any] = {
            "sampling": SamplingParams(
                seed=seed, max_tokens=max_tokens, n=n, stop=stop, ignore_eos=ignore_eos
            ),
            "created_s": int(time.time()),
            "reply_to": self.api,
            "prompts": () if "messages" in changes else (prompt,),
        }
        return make_job(version, **{**fields, **changes})

    async def send(self, *args: Any, **kwargs: Any) -> Job:
        """Make a job, enqueue it and return it; takes the arguments of `make`."""
        job = self.make(*args, **kwargs)
        await self.queue.enqueue(job, LIMITS)
        return job

    async def end_of(self, job: Job, deadline_s: float = DEADLINE_S) -> End:
        """Wait for the job's final event and return it."""
        await until(lambda: self._find_end(job), deadline_s)
        end = self._find_end(job)
        assert end is not None
        return end

    async def result_of(self, job: Job, deadline_s: float = DEADLINE_S) -> Result:
        """Wait for the job's end and return its stored result."""
        await self.end_of(job, deadline_s)
        result = (await self.views.job_and_result(job.id))[1]
        assert result is not None
        return result

    async def until_published(self, job: Job, count: int) -> None:
        await until(lambda: sum(len(t.ids) for t in self.tokens_of(job)) >= count)

    def tokens_of(self, job: Job) -> list[Tokens]:
        return [event for event in self.events[job.id] if isinstance(event, Tokens)]

    def answers_of(
        self, job: Job, *, may_repeat: bool = False
    ) -> dict[int, tuple[tuple[int, ...], str]]:
        """Return the ids and the text of each choice of an ended job, joined from its events.

        Fails if the events have a gap or an overlap, or if one follows the end of its choice or
        job. With `may_repeat` an event may be repeated, as after a lost reply to a publication.
        """
        answers: dict[int, tuple[tuple[int, ...], str]] = {}
        finished: set[int] = set()
        try_ = 0
        for event in self.events[job.id]:
            assert event.try_ >= try_, "an event of an earlier try follows one of a later try"
            try_ = event.try_ + 1 if isinstance(event, Retry) else event.try_
            if isinstance(event, Tokens):
                ids, text = answers.get(event.choice, ((), ""))
                if may_repeat and event.index + len(event.ids) <= len(ids):
                    assert ids[event.index :][: len(event.ids)] == event.ids
                    continue
                assert event.index == len(ids), "the events have a gap or an overlap"
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
    """Keep `number` jobs of one tenant and one version in the pool at any time.

    Yields the list of jobs sent, which grows.
    """
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
async def running_with(
    redis: Redis, settings: WorkerSettings, served: ServedModel
) -> AsyncIterator[Worker]:
    """Run a worker in this process. At exit it is stopped and must end without an error."""
    worker = Worker(settings, redis, served)
    views = PoolViews(redis, Keys(settings.pool))
    before = len(await views.workers())
    async with asyncio.TaskGroup() as group:
        task = group.create_task(worker.run())
        await until(lambda: has_workers(views, before + 1))
        try:
            yield worker
        finally:
            worker.stop()
            worker.stop()
        async with asyncio.timeout(DEADLINE_S):
            await task


def check_answers(client: Client, jobs: Sequence[Job], *, may_repeat: bool = False) -> None:
    """Fail unless the events of each ended job join to exactly the scripted answers."""
    for job in jobs:
        sampling = job.sampling
        assert sampling.max_tokens is not None
        answers = {}
        for choice in range(job.num_choices):
            number = choice % sampling.n
            ids = expected_ids(sampling.seed, number, sampling.max_tokens, job.version)
            answers[choice] = (tuple(ids), expected_text(ids))
        assert client.answers_of(job, may_repeat=may_repeat) == answers
