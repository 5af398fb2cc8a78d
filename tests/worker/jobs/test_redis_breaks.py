"""No token and no end of a job is lost while Redis is away, slow, emptied or replaced."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fake_clock import FakeClock
from queue_support import LIMITS, Actor, make_job
from scripted_engine import ScriptedEngine, expected_ids
from worker_support import Client, check_answers, has_workers, until

from ops.local.embedded_redis import EmbeddedRedis, start_redis
from shared.errors import RedisUnavailable
from shared.protocol.events import End, Event, Tokens
from shared.protocol.ids import ApiId
from shared.protocol.jobs import ClaimedJob, JobState
from shared.protocol.queue_replies import Standing
from shared.protocol.results import Result
from shared.store.jobs.ended_jobs import EndedJob
from shared.store.jobs.queue import Queue
from shared.store.jobs.token_streams import read_checkpoints
from shared.store.redis.connection import Redis, connect
from shared.store.redis.durability import Replication
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews
from worker.jobs import durable_ends
from worker.jobs.durable_ends import DurableEnds


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[list[EmbeddedRedis]]:
    """A Redis that persists its data; a test that restarts it appends the new process."""
    servers = [start_redis(tmp_path)]
    yield servers
    servers[-1].stop()


@pytest.fixture
async def own_client(server: list[EmbeddedRedis], keys: Keys) -> AsyncIterator[Client]:
    async with Client(connect(server[0].url), keys).reading() as client:
        yield client
    await client.redis.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("ends_meanwhile", [False, True])
async def test_a_restart_of_redis_in_mid_stream_loses_nothing(
    server: list[EmbeddedRedis], own_client: Client, tmp_path: Path, ends_meanwhile: bool
) -> None:
    engine = ScriptedEngine(step_s=0.002 if ends_meanwhile else 0.005)
    length = 200 if ends_meanwhile else 600
    async with own_client.worker(engine):
        jobs = [await own_client.send(max_tokens=length, seed=seed) for seed in range(4)]
        for job in jobs:
            await own_client.until_published(job, 5 if ends_meanwhile else 20)
        server[0].stop()
        if ends_meanwhile:
            await until(lambda: not engine.requests)
        assert len(engine.requests) == (0 if ends_meanwhile else 4)
        server.append(await asyncio.to_thread(start_redis, tmp_path, port=server[0].port))
        ends = [await own_client.end_of(job) for job in jobs]
        later = await own_client.end_of(await own_client.send())
    assert [(end.state, end.try_) for end in ends] == [(JobState.DONE, 1)] * 4
    assert later.state is JobState.DONE
    check_answers(own_client, jobs, may_repeat=True)


async def test_the_steps_computed_while_redis_was_suspended_are_published_at_once(
    server: list[EmbeddedRedis], own_client: Client
) -> None:
    engine = ScriptedEngine(step_s=0.002)
    async with own_client.worker(engine):
        job = await own_client.send(max_tokens=300)
        await own_client.until_published(job, 5)
        os.kill(server[0].pid, signal.SIGSTOP)
        await until(lambda: not engine.requests)
        os.kill(server[0].pid, signal.SIGCONT)
        await own_client.end_of(job)
    check_answers(own_client, [job], may_repeat=True)
    assert max(len(tokens.ids) for tokens in own_client.tokens_of(job)) > 100


async def test_a_pool_that_lost_all_its_data_is_set_up_again(own_client: Client) -> None:
    async with own_client.worker(ScriptedEngine(), lease_ms=600, adapters=("one=v1",)):
        await own_client.redis.flushall()
        await until(lambda: has_workers(own_client.views, 1))
        result = await own_client.result_of(await own_client.send())
    assert result.state is JobState.DONE


async def test_a_publication_whose_reply_is_lost_is_repeated_unchanged(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, num_lost = Queue.publish, 0

    async def losing(
        queue: Queue, wid: object, events: dict[ApiId, Sequence[Event]], *args: Any, **epochs: Any
    ) -> Standing:
        nonlocal num_lost
        standing = await publish(queue, wid, events, *args, **epochs)  # type: ignore[arg-type]
        if num_lost < 3 and any(isinstance(e, Tokens) for batch in events.values() for e in batch):
            num_lost += 1
            raise RedisUnavailable("scripted to lose the reply")
        return standing

    monkeypatch.setattr(Queue, "publish", losing)
    async with client.worker():
        job = await client.send(max_tokens=100)
        await client.end_of(job)
    assert num_lost == 3
    check_answers(client, [job], may_repeat=True)


async def test_checkpoints_become_complete_again_after_acknowledged_publications_are_lost(
    client: Client,
) -> None:
    """A replaced master acknowledges publications that its successor lacks, without any error."""

    async def are_complete() -> bool:
        stored = await read_checkpoints(
            client.redis, client.keys, job.id
        )  # empty after the end of the job
        ids = stored[0].ids if stored else ()
        return len(ids) > num_shown and ids == tuple(expected_ids(1, 0, len(ids), job.version))

    async with client.worker(ScriptedEngine(step_s=0.005)):
        job = await client.send(max_tokens=900)
        await client.until_published(job, 100)
        successor = await copy_of_pool(client.redis, client.keys)
        await client.until_published(job, 200)
        await replace_pool(client.redis, client.keys, successor)
        num_shown = sum(len(tokens.ids) for tokens in client.tokens_of(job))
        await until(are_complete)


async def copy_of_pool(redis: Redis, keys: Keys) -> list[bytes]:
    """Return the keys of the pool, each one followed by its value."""
    script = """
      local copy = {}
      for _, key in ipairs(redis.call('KEYS', KEYS[1] .. '*')) do
        table.insert(copy, key)
        table.insert(copy, redis.call('DUMP', key))
      end
      return copy
    """
    copy: list[bytes] = await redis.eval(script, 1, keys.prefix)  # type: ignore[misc]
    return copy


async def replace_pool(redis: Redis, keys: Keys, copy: list[bytes]) -> None:
    """Undo all writes to the pool since `copy` was made, as a failover can."""
    script = """
      for _, key in ipairs(redis.call('KEYS', KEYS[1] .. '*')) do redis.call('DEL', key) end
      for i = 1, #ARGV, 2 do redis.call('RESTORE', ARGV[i], 60000, ARGV[i + 1]) end
    """
    await redis.eval(script, 1, keys.prefix, *copy)  # type: ignore[misc]


@pytest.mark.slow
async def test_running_and_waiting_jobs_complete_despite_jumps_of_an_hour(
    tmp_path: Path, pool: str
) -> None:
    with FakeClock.build(tmp_path) as clock:
        redis, keys = connect(clock.start_redis()), Keys(pool)
        client = Client(redis, keys)
        engines = [ScriptedEngine(step_s=0.01) for _ in range(2)]
        settings = {"lease_ms": 900, "max_num_seqs": 3}
        async with client.worker(engines[0], **settings):  # noqa: SIM117 -- one after the other
            async with client.worker(engines[1], **settings):
                jobs = [await client.send(max_tokens=120, seed=seed) for seed in range(36)]
                for offset_s in (3600, 0, -3600, 0):
                    num_ended = await count_ended(client)
                    clock.set(offset_s)
                    await until(lambda before=num_ended: has_more_ended(client, before))
                await until(lambda: have_all_ended(client, len(jobs)))
        counts = await client.views.counts()
        assert sum(counts.totals.values()) == len(jobs)
        assert (counts.workers_lost, counts.retried) == (0, 0)
        await redis.aclose()


async def count_ended(client: Client) -> int:
    return (await client.views.counts()).totals[JobState.DONE]


async def have_all_ended(client: Client, count: int) -> bool:
    return await count_ended(client) == count


async def has_more_ended(client: Client, before: int) -> bool:
    return await count_ended(client) > before


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
        await until(setup.is_done)
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
