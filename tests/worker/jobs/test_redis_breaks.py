"""Generation continues and no token is lost while Redis is unavailable, slow or emptied."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from scripted_engine import ScriptedEngine, expected_ids
from worker_support import Client, check_answers, has_workers, until

from ops.local.embedded_redis import EmbeddedRedis, start_redis
from shared.cancel_tasks import cancel_tasks
from shared.errors import RedisUnavailable
from shared.protocol.events import Event, Tokens
from shared.protocol.ids import ApiId
from shared.protocol.jobs import JobState
from shared.protocol.queue_replies import Standing
from shared.store.jobs.queue import Queue
from shared.store.jobs.token_streams import read_checkpoints
from shared.store.redis.connection import Redis, connect
from shared.store.redis.keys import Keys


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[list[EmbeddedRedis]]:
    """A Redis that persists its data; a test that restarts it appends the new process."""
    servers = [start_redis(tmp_path)]
    yield servers
    servers[-1].stop()


@pytest.fixture
async def own_client(server: list[EmbeddedRedis], keys: Keys) -> AsyncIterator[Client]:
    client = Client(connect(server[0].url), keys)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(client.read())
        yield client
        await cancel_tasks(reading)
    await client.redis.aclose()


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
