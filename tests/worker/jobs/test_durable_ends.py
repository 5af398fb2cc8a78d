"""Ends of jobs that a failover loses are repeated."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

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
    waiting: asyncio.Event = field(default_factory=asyncio.Event)

    async def confirm(self, connection: Redis, replication: Replication) -> None:
        self.waiting.set()
        if not self.is_up:
            raise RedisUnavailable("scripted")


class Setup:
    """A worker with a job, which it ends, and the ends that it must repeat if they are lost."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self.redis, self.keys = redis, keys
        self.durability = ScriptedDurability()
        self.queue = Queue(redis, keys, durability=self.durability)  # type: ignore[arg-type]
        self.ends = DurableEnds(self.queue)
        self.claimed: ClaimedJob
        self.job: EndedJob

    async def end_job(self) -> None:
        """End a job, and keep the call with which it was ended."""
        worker = await Actor(self.queue, self.redis, self.keys, "w1", ["a@1"]).register()
        await self.queue.enqueue(make_job(), LIMITS)
        (claimed,) = await worker.claim()
        await worker.finish(claimed)
        end = End(job=claimed.job.id, try_=claimed.try_, state=JobState.DONE)
        result = Result(job=claimed.job.id, state=JobState.DONE)
        self.claimed, self.worker = claimed, worker
        self.job = EndedJob(worker.id, end, result, claimed.claim_epoch)

    async def roll_back(self) -> None:
        """Undo the end of the job, as a failover does that loses it."""
        wid, job_id = self.worker.id, self.claimed.job.id
        fields = {"state": "running", "owner": wid, "cost": 10, "retain": 1000, "out": "api-1"}
        await self.redis.hset(self.keys.job(job_id), mapping=fields)
        await self.redis.zadd(self.keys.owned(wid), {job_id: self.claimed.claim_epoch})

    async def is_done(self) -> bool:
        view = await PoolViews(self.redis, self.keys).job(self.claimed.job.id)
        return view is not None and view.state is JobState.DONE

    @asynccontextmanager
    async def unconfirmed(self) -> AsyncIterator[None]:
        """Confirm the end of the job within the context, in vain until `durability` is up."""
        self.durability.is_up = False
        self.ends.add(self.job)
        self.durability.waiting.clear()
        running = asyncio.create_task(self.ends.run())
        await self.durability.waiting.wait()
        yield
        running.cancel()


@pytest.fixture
async def setup(redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> Setup:
    monkeypatch.setattr(durable_ends, "RETRY_S", 0.01)
    setup = Setup(redis, keys)
    await setup.end_job()
    return setup


async def test_an_end_that_a_failover_loses_is_repeated(setup: Setup) -> None:
    async with setup.unconfirmed():
        await setup.roll_back()
        await eventually(setup.is_done)
        setup.durability.is_up = True
        await setup.ends.settle()
    assert await setup.redis.zcard(setup.keys.owned(setup.worker.id)) == 0


async def test_an_end_that_only_the_replaced_server_has_is_repeated(setup: Setup) -> None:
    await setup.roll_back()  # the successor, whose writes are durable
    setup.ends.add(setup.job)
    assert setup.ends.job_ids == [setup.claimed.job.id]
    await setup.ends.settle()
    assert setup.ends.job_ids == []
    assert await setup.is_done()


async def test_settling_waits_for_the_ends_that_are_being_confirmed(setup: Setup) -> None:
    async with setup.unconfirmed():
        settling = asyncio.create_task(setup.ends.settle())
        await asyncio.sleep(0)
        assert not settling.done()
        setup.durability.is_up = True
        await settling


async def test_nothing_is_confirmed_without_strict_durability(setup: Setup) -> None:
    ends = DurableEnds(Queue(setup.redis, setup.keys))
    ends.add(setup.job)
    await ends.settle()
    assert ends.job_ids == []
