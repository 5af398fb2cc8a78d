"""`lorikeet adapters | queue | jobs` against a real Redis."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from queue_support import LIMITS, Actor, make_job
from typer.testing import CliRunner

from ops import cli
from shared.connection import Redis
from shared.errors import JobFailed
from shared.ids import AdapterVersion
from shared.jobs import JobState
from shared.keys import Keys
from shared.queue import Queue
from shared.registry import Adapter, BaseModel, Registry

Run = Callable[..., Awaitable[str]]


@pytest.fixture
def run(redis_url: str, pool: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """What `lorikeet WORDS` prints about the test's pool."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LORIKEET_REDIS_URL", redis_url)
    monkeypatch.setenv("LORIKEET_POOL", pool)

    async def invoke(*words: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, cli.app, words)
        if result.exception:
            raise result.exception
        return result.output

    return invoke


async def test_adapters_are_listed_with_the_workers_that_hold_them(
    run: Run, queue: Queue, redis: Redis, keys: Keys
) -> None:
    registry = Registry(redis, keys)
    await registry.set_base(
        BaseModel(name="b", version=AdapterVersion("b@0"), max_model_len=8, source="b", created_s=0)
    )
    await registry.add_adapter(
        Adapter(
            name="sql",
            version=AdapterVersion("sql@0123456789ab"),
            digest="0" * 64,
            weights_digest="1" * 64,
            source="org/sql",
            rank=8,
            num_bytes=1_843_200,
            created_s=0,
        )
    )
    await Actor(queue, redis, keys, "w1", ["b@0", "sql@0123456789ab"]).register()
    await Actor(queue, redis, keys, "w2", ["b@0"]).register()

    rows = [line for line in (await run("adapters")).splitlines() if "sql" in line]

    cells = [cell.strip() for cell in rows[0].strip("│").split("│")]
    assert cells == ["sql", "sql@0123456789ab", "8", "1.8", "org/sql", "ready", "1 of 2"]


async def test_the_queue_shows_workers_and_what_waits(
    run: Run, queue: Queue, redis: Redis, keys: Keys
) -> None:
    await Actor(queue, redis, keys, "w1", ["a@1", "c@2"]).register()
    for version in ("a@1", "b@9", "b@9"):
        await queue.enqueue(make_job(version), LIMITS)

    shown = await run("queue")

    assert "w1" in shown
    assert "c@2" in shown
    backlog = [line.strip("│ ").split() for line in shown.splitlines() if "│ b@9" in line]
    assert backlog == [["b@9", "│", "2"]]
    assert "3 waiting" in shown


async def test_a_job_is_shown_and_cancelled(run: Run, queue: Queue) -> None:
    job = make_job("a@1")
    await queue.enqueue(job, LIMITS)
    assert "queued" in await run("jobs", "show", job.id)
    assert "queued" in await run("jobs", "show", f"chatcmpl-{job.id}")

    assert await run("jobs", "cancel", job.id) == f"{job.id}: cancelled\n"

    view = await queue.job_view(job.id)
    assert view is not None
    assert view.state is JobState.CANCELLED
    assert "cancelled" in await run("jobs", "show", job.id)


async def test_cancelling_a_running_job_says_that_its_worker_is_told(
    run: Run, queue: Queue, redis: Redis, keys: Keys
) -> None:
    job = make_job("a@1")
    await queue.enqueue(job, LIMITS)
    worker = await Actor(queue, redis, keys, "w1", ["a@1"]).register()
    assert await worker.claim_ids() == [job.id]
    assert await run("jobs", "cancel", job.id) == f"{job.id}: cancelling: its worker is told\n"


@pytest.mark.parametrize("command", ["show", "cancel"])
async def test_an_unknown_job_is_an_error(run: Run, command: str) -> None:
    with pytest.raises(JobFailed, match="no job nothing: it never was, or it is no longer kept"):
        await run("jobs", command, "nothing")
