"""`lorikeet audit` against a real Redis."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from command_line import lorikeet, typed
from queue_support import LIMITS, make_job

from ops.commands.audit import StraysFound
from shared.protocol.ids import JobId
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

Run = Callable[..., Awaitable[str]]


@pytest.fixture
def run(redis_url: str, pool: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs `lorikeet WORDS` on the test's pool and returns its output."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LORIKEET_REDIS_URL", redis_url)
    monkeypatch.setenv("LORIKEET_POOL", pool)
    return partial(asyncio.to_thread, lorikeet)


STRAY = JobId("0" * 32)


async def test_a_healthy_pool_passes(run: Run, queue: Queue) -> None:
    await queue.enqueue(make_job(), LIMITS)
    shown = await run("audit")
    assert shown.endswith("keys, each with an owner or a lifetime\n")
    assert int(shown.split()[0]) > 5


async def test_strays_are_listed_and_fail_the_command(run: Run, redis: Redis, keys: Keys) -> None:
    await redis.set(keys.result(STRAY), "x")
    await redis.zadd(keys.due, {STRAY: 1})
    with pytest.raises(StraysFound, match="2 strays among 2 keys"):
        await run("audit", "--settle-s", "0")
    ended = await asyncio.to_thread(typed, "audit", "--settle-s", "0")
    assert f"pool {keys.prefix[4:-2]} at redis://" in ended.err
    rows = {line.split()[0]: line for line in ended.out.splitlines() if "lk:" in line}
    assert "it never expires" in rows[keys.result(STRAY)]
    assert STRAY in rows[keys.due]
    assert "the job is finished or unknown" in rows[keys.due]
