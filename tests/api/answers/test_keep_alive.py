"""Comments that say how long a job will probably wait."""

import asyncio

import pytest
from queue_support import LIMITS, Actor, make_job

from api.answers.delivery import comment, keep_alive
from shared.errors import RedisUnavailable
from shared.protocol.ids import JobId
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews, Wait

PLAIN = b": keep-alive\n"


@pytest.mark.parametrize(
    ("wait", "text"),
    [
        (
            Wait(position=3, num_waiting=12, estimated_s=39.2),
            "waiting, position 3 of 12, about 40 s",
        ),
        (Wait(position=1, num_waiting=1, estimated_s=None), "waiting, position 1 of 1"),
        (None, "keep-alive"),
    ],
)
def test_a_comment_states_the_place_and_the_estimated_wait(wait: Wait | None, text: str) -> None:
    assert comment(wait) == f": {text}\n".encode()


async def test_the_comment_of_a_waiting_job_has_its_place_in_the_queue(
    queue: Queue, redis: Redis, keys: Keys, views: PoolViews
) -> None:
    jobs = [make_job() for _ in range(3)]
    for job in jobs:
        await queue.enqueue(job, LIMITS)
    assert await keep_alive(views, jobs[1].id) == b": waiting, position 2 of 3\n"
    worker = await Actor(queue, redis, keys, "w", ["a@1"]).register()
    await worker.claim()
    assert await keep_alive(views, jobs[1].id) == PLAIN
    assert await keep_alive(views, JobId("unknown")) == PLAIN


async def test_a_comment_does_not_wait_for_redis(
    views: PoolViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(job_id: JobId) -> Wait | None:
        await asyncio.Event().wait()
        return None

    monkeypatch.setattr(views, "wait", never)
    async with asyncio.timeout(60):
        assert await keep_alive(views, JobId("a")) == PLAIN


async def test_without_redis_the_comment_is_plain(
    views: PoolViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(job_id: JobId) -> Wait | None:
        raise RedisUnavailable

    monkeypatch.setattr(views, "wait", fail)
    assert await keep_alive(views, JobId("a")) == PLAIN
