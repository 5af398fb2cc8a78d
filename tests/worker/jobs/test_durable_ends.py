"""Ends of jobs that a failover loses are repeated."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from queue_support import LIMITS, Actor, eventually, make_job

from shared.errors import RedisUnavailable
from shared.protocol.events import End
from shared.protocol.jobs import ClaimedJob, JobState
from shared.protocol.results import Result
from shared.store.jobs.ended_jobs import EndedJob
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.durability import Replication
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews
from worker.jobs import durable_ends
from worker.jobs.durable_ends import DurableEnds


@dataclass
class ScriptedDurability:
    """Confirms writes only while `is_up`."""

    is_up: bool = True
    num_asked: int = 0
    waiting: asyncio.Event = field(default_factory=asyncio.Event)

    async def confirm(self, connection: Redis, replication: Replication) -> None:
        self.num_asked += 1
        self.waiting.set()
        if not self.is_up:
            raise RedisUnavailable("scripted")


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_ends, "RETRY_S", 0.01)


@pytest.fixture
def durability() -> Iterator[ScriptedDurability]:
    return ScriptedDurability()  # type: ignore[return-value]


@pytest.fixture
def queue(redis: Redis, keys: Keys, durability: Any) -> Queue:
    return Queue(redis, keys, durability=durability)


@pytest.fixture
async def worker(queue: Queue, redis: Redis, keys: Keys) -> Actor:
    return await Actor(queue, redis, keys, "w1", ["a@1"]).register()


async def ended(queue: Queue, worker: Actor) -> tuple[ClaimedJob, EndedJob]:
    """End a job, and return the call with which it was ended."""
    await queue.enqueue(make_job(), LIMITS)
    (claimed,) = await worker.claim()
    await worker.finish(claimed)
    end = End(job=claimed.job.id, try_=claimed.try_, state=JobState.DONE)
    result = Result(job=claimed.job.id, state=JobState.DONE)
    return claimed, EndedJob(worker.id, end, result, claimed.claim_epoch)


@asynccontextmanager
async def unconfirmed(
    ends: DurableEnds, job: EndedJob, durability: ScriptedDurability
) -> AsyncIterator[None]:
    """Within the context, the end of the job is being confirmed, in vain as long as it is down."""
    durability.is_up = False
    ends.add(job)
    durability.waiting.clear()
    running = asyncio.create_task(ends.run())
    await durability.waiting.wait()
    yield
    running.cancel()


async def roll_back(redis: Redis, keys: Keys, worker: Actor, claimed: ClaimedJob) -> None:
    """Undo the end of a job, as a failover does that loses it."""
    fields = {"state": "running", "owner": worker.id, "cost": 10, "retain": 1000, "out": "api-1"}
    await redis.hset(keys.job(claimed.job.id), mapping=fields)
    await redis.zadd(keys.owned(worker.id), {claimed.job.id: claimed.claim_epoch})


async def test_an_end_that_a_failover_loses_is_repeated(
    queue: Queue,
    redis: Redis,
    keys: Keys,
    views: PoolViews,
    worker: Actor,
    durability: ScriptedDurability,
) -> None:
    ends = DurableEnds(queue)
    claimed, job = await ended(queue, worker)

    async def is_done() -> bool:
        view = await views.job(claimed.job.id)
        return view is not None and view.state is JobState.DONE

    async with unconfirmed(ends, job, durability):
        await roll_back(redis, keys, worker, claimed)
        await eventually(is_done)
        durability.is_up = True
        await ends.settle()
    assert await redis.zcard(keys.owned(worker.id)) == 0


async def test_an_end_that_only_the_replaced_server_has_is_repeated(
    queue: Queue, redis: Redis, keys: Keys, views: PoolViews, worker: Actor
) -> None:
    ends = DurableEnds(queue)
    claimed, job = await ended(queue, worker)
    await roll_back(redis, keys, worker, claimed)  # the successor, whose writes are durable
    ends.add(job)
    assert ends.job_ids == [claimed.job.id]
    await ends.settle()
    assert ends.job_ids == []
    view = await views.job(claimed.job.id)
    assert view.state is JobState.DONE


async def test_settling_waits_for_the_ends_that_are_being_confirmed(
    queue: Queue, worker: Actor, durability: ScriptedDurability
) -> None:
    ends = DurableEnds(queue)
    _, job = await ended(queue, worker)
    async with unconfirmed(ends, job, durability):
        settling = asyncio.create_task(ends.settle())
        await asyncio.sleep(0)
        assert not settling.done()
        durability.is_up = True
        await settling


async def test_nothing_is_confirmed_without_strict_durability(redis: Redis, keys: Keys) -> None:
    queue = Queue(redis, keys)
    worker = await Actor(queue, redis, keys, "w1", ["a@1"]).register()
    ends = DurableEnds(queue)
    _, job = await ended(queue, worker)
    ends.add(job)
    await ends.settle()
    assert ends.job_ids == []
