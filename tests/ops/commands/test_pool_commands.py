"""`lorikeet queue | jobs` against a real Redis."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from queue_support import LIMITS, Actor, make_job
from typer.testing import CliRunner

from ops import cli
from shared.errors import ErrorCode, JobFailed
from shared.protocol.ids import AdapterVersion
from shared.protocol.jobs import Job, JobState
from shared.store.connection import Redis
from shared.store.keys import Keys
from shared.store.queue import Queue
from shared.store.registry import Adapter, Registry

Run = Callable[..., Awaitable[str]]
SQL = Adapter(
    name="sql",
    version=AdapterVersion("sql@0123456789ab"),
    digest="0" * 64,
    weights_digest="1" * 64,
    source="org/sql",
    rank=8,
    num_bytes=1_843_200,
    created_s=0,
)


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


async def test_the_queue_shows_workers_and_what_waits(
    run: Run, queue: Queue, redis: Redis, keys: Keys
) -> None:
    await Actor(queue, redis, keys, "w1", ["a@1", "c@2"]).register()
    for version in ("a@1", "b@9", "b@9"):
        await queue.enqueue(make_job(version), LIMITS)

    shown = await run("queue")

    assert "w1" in shown
    assert "c@2" in shown
    (backlog,) = [line.split() for line in shown.splitlines() if "b@9" in line]
    assert backlog[:2] == ["b@9", "2"]
    assert backlog[-4:] == ["0", "of", "1", "workers"]
    assert "1 worker · 0 running · 3 waiting, up to 0." in shown
    assert "jobs/s" not in shown  # a rate takes two looks


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


async def test_dead_jobs_are_listed_with_the_reason(
    run: Run, queue: Queue, redis: Redis, keys: Keys
) -> None:
    assert await run("jobs", "dead") == "no job was given up\n"
    job = await killing_job(queue, redis, keys)
    shown = await run("jobs", "dead")
    for word in (job.id, "a@1", "red", "3", "w1", "killed its worker 2 times", "not be tried"):
        assert word in shown


async def test_a_dead_job_is_tried_anew_with_the_weights_of_today(
    run: Run, queue: Queue, redis: Redis, keys: Keys
) -> None:
    dead = await killing_job(queue, redis, keys)
    await Registry(redis, keys).add_adapter(replace(SQL, name="a", version=AdapterVersion("a@2")))

    said = await run("jobs", "retry", f"chatcmpl-{dead.id}")

    worker = await Actor(queue, redis, keys, "w2", ["a@2"]).register()
    (claimed,) = await worker.claim()
    assert said == f"chatcmpl-{dead.id}: enqueued as {claimed.job.id}, number 1 of its queue\n"
    assert claimed.suspect
    same = replace(dead, id=claimed.job.id, version="a@2", reply_to=claimed.job.reply_to)
    assert replace(claimed.job, created_s=0) == same
    assert await run("jobs", "dead") == "no job was given up\n"
    with pytest.raises(JobFailed, match="is dead: it was tried anew before"):
        await run("jobs", "retry", dead.id)


async def test_a_job_that_failed_by_a_fault_of_ours_is_tried_anew(
    run: Run, queue: Queue, redis: Redis, keys: Keys
) -> None:
    await Registry(redis, keys).add_adapter(replace(SQL, name="a", version=AdapterVersion("a@1")))
    job = await failed_job(queue, redis, keys, ErrorCode.INTERNAL)
    assert "enqueued as" in await run("jobs", "retry", job.id)
    worker = await Actor(queue, redis, keys, "w2", ["a@1"]).register()
    (claimed,) = await worker.claim()
    assert (claimed.job.prompts, claimed.suspect) == (job.prompts, False)


async def test_a_job_whose_model_is_gone_stays_a_dead_letter(
    run: Run, queue: Queue, redis: Redis, keys: Keys
) -> None:
    job = await killing_job(queue, redis, keys)
    with pytest.raises(JobFailed, match="no model 'a' is served any more"):
        await run("jobs", "retry", job.id)
    assert job.id in await run("jobs", "dead")


async def test_other_jobs_are_not_tried_anew(
    run: Run, queue: Queue, redis: Redis, keys: Keys
) -> None:
    waiting, bad = make_job("a@1"), await failed_job(queue, redis, keys, ErrorCode.INVALID_VALUE)
    await queue.enqueue(waiting, LIMITS)
    with pytest.raises(JobFailed, match="is queued: only dead and failed jobs"):
        await run("jobs", "retry", waiting.id)
    with pytest.raises(JobFailed, match=r"is failed: .* would fail again"):
        await run("jobs", "retry", bad.id)


async def killing_job(queue: Queue, redis: Redis, keys: Keys) -> Job:
    """A dead letter."""
    job = make_job("a@1", tenant="red")
    await queue.enqueue(job, LIMITS)
    worker = await Actor(queue, redis, keys, "w1", ["a@1"]).register()
    for _ in range(3):
        assert await worker.claim_ids() == [job.id]
        await worker.die()
        await worker.register()
    return job


async def failed_job(queue: Queue, redis: Redis, keys: Keys, code: ErrorCode) -> Job:
    job = make_job("a@1")
    await queue.enqueue(job, LIMITS)
    worker = await Actor(queue, redis, keys, "w1", ["a@1"]).register()
    (claimed,) = await worker.claim()
    await worker.fail(claimed, code)
    return job


@pytest.mark.parametrize("command", ["show", "cancel", "retry"])
async def test_an_unknown_job_is_an_error(run: Run, command: str) -> None:
    with pytest.raises(JobFailed, match="no job nothing: it never was, or it is no longer kept"):
        await run("jobs", command, "nothing")
