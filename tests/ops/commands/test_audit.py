"""`lorikeet audit` against a real Redis."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from queue_support import LIMITS, make_job
from typer.testing import CliRunner

from ops import cli
from ops.commands.audit import StraysFound
from shared.protocol.ids import JobId
from shared.store.audit.running_audit import RunningAudit
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

Run = Callable[..., Awaitable[str]]
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
    result = await asyncio.to_thread(CliRunner().invoke, cli.app, ["audit", "--settle-s", "0"])
    rows = {line.split()[0]: line for line in result.output.splitlines() if "lk:" in line}
    assert "it never expires" in rows[keys.result(STRAY)]
    assert STRAY in rows[keys.due]
    assert "the job is finished or unknown" in rows[keys.due]


async def test_the_queue_names_the_number_of_strays(run: Run, redis: Redis, keys: Keys) -> None:
    assert "stray" not in await run("queue")
    await redis.set(keys.result(STRAY), "x")
    audit = RunningAudit(redis, keys)
    for _ in range(2):
        await audit.step()
    assert "stray keys: 1; `lorikeet audit` lists them" in await run("queue")
