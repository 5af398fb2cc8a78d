"""A front end that reports that it is alive, and takes its jobs back if it counted as dead."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest
from api_support import RunningApp
from queue_support import API, LIMITS, eventually, make_job

from api.answers.intake import Following
from api.follow import cancel_queue as presence
from api.follow.cancel_queue import CancelQueue, Presence
from api.follow.reply_hub import ReplyHub
from shared.errors import RedisUnavailable
from shared.protocol.ids import ApiId
from shared.store.jobs.queue import Queue
from shared.store.jobs.token_streams import ReplyReader
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

DAY_MS = 86_400_000


@pytest.fixture
def hub() -> ReplyHub:
    return ReplyHub(cast(ReplyReader, None))


@pytest.fixture
async def running(
    queue: Queue, hub: ReplyHub, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Presence]:
    monkeypatch.setattr(presence, "BEAT_S", 0.01)
    cancels = CancelQueue(queue, hub, API, grace_ms=0)
    one = Presence(queue, hub, cancels, API)
    tasks = [asyncio.create_task(loop.run()) for loop in (one, cancels)]
    yield one
    for task in tasks:
        task.cancel()


async def test_a_running_front_end_reports_that_it_is_alive(
    server: RunningApp, redis: Redis, keys: Keys
) -> None:
    assert await eventually(lambda: redis.zscore(keys.apis, server.pool.part(Following).api_id))


async def test_a_front_end_that_counted_as_dead_is_attached_to_its_jobs_again(
    queue: Queue, hub: ReplyHub, running: Presence, redis: Redis, keys: Keys
) -> None:
    await eventually(lambda: redis.zscore(keys.apis, API))
    job, left = make_job(), make_job()
    for each in (job, left):
        await queue.enqueue(each, LIMITS)
        await redis.zadd(keys.abandoned, {each.id: 10**15})
    with hub.open(job.id, 1):
        await redis.zincrby(keys.apis, -DAY_MS / 2, API)

        async def is_kept() -> bool:
            return await redis.zscore(keys.abandoned, job.id) is None

        await eventually(is_kept)
    assert await redis.zscore(keys.abandoned, left.id) is not None


async def test_reports_go_on_after_an_outage_of_redis(
    queue: Queue,
    running: Presence,
    redis: Redis,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    num_failures = 0

    async def fail(api: ApiId) -> bool:
        nonlocal num_failures
        num_failures += 1
        raise RedisUnavailable("scripted")

    async def has_failed() -> bool:
        return num_failures > 1

    with monkeypatch.context() as patched:
        patched.setattr(queue, "beat_api", fail)
        await eventually(has_failed)
    await redis.delete(keys.apis)
    await eventually(lambda: redis.zscore(keys.apis, API))
