"""`lorikeet jobs` against a real Redis."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from adapter_versions import BASE
from queue_support import LIMITS, Actor, make_adapter, make_job

from shared.errors import JobFailed
from shared.protocol.jobs import Job, JobState
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

Run = Callable[..., Awaitable[str]]
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_a_job_is_shown_and_cancelled(run: Run, queue: Queue, views: PoolViews) -> None:
    job = make_job("a@1")
    await queue.enqueue(job, LIMITS)
    assert "queued" in await run("jobs", "show", job.id)
    assert "queued" in await run("jobs", "show", f"chatcmpl-{job.id}")

    assert await run("jobs", "cancel", job.id) == f"{job.id}: cancelled\n"

    view = await views.job(job.id)
    assert view is not None
    assert view.state is JobState.CANCELLED
    assert "cancelled" in await run("jobs", "show", job.id)


async def test_cancelling_a_running_job_says_that_its_worker_will_stop_it(
    run: Run, queue: Queue, redis: Redis, keys: Keys
) -> None:
    job = make_job("a@1")
    await queue.enqueue(job, LIMITS)
    worker = await Actor(queue, redis, keys, "w1", ["a@1"]).register()
    assert await worker.claim_ids() == [job.id]
    assert await run("jobs", "cancel", job.id) == f"{job.id}: cancelling: its worker will stop it\n"


async def test_dead_jobs_are_listed_with_the_reason_and_a_summary(
    run: Run, queue: Queue, redis: Redis, keys: Keys
) -> None:
    assert await run("jobs", "dead") == "there are no dead jobs\n"
    job = await dead_job(queue, redis, keys)
    shown = await run("jobs", "dead")
    for word in (job.id, "a@1", "red", "3", "w1", "killed its worker 2 times", "not be tried"):
        assert word in shown
    summary = "dead jobs: 1, all listed; adapters: a@1 (1); workers: w1 (1); errors: poison_job (1)"
    assert summary in shown.splitlines()
    await dead_job(queue, redis, keys)
    shown = await run("jobs", "dead", "--most", "1")
    assert "dead jobs: 2, the newest 1 listed; adapters: a@1 (1)" in shown


async def test_a_dead_job_is_retried_with_the_current_weights(
    run: Run, queue: Queue, redis: Redis, keys: Keys
) -> None:
    dead = await dead_job(queue, redis, keys)
    registry = Registry(redis, keys)
    await registry.set_base(BASE)
    await registry.add_adapter(make_adapter("a@2"))

    output = await run("jobs", "retry", f"chatcmpl-{dead.id}")

    worker = await Actor(queue, redis, keys, "w2", ["a@2"]).register()
    (claimed,) = await worker.claim()
    assert output == f"chatcmpl-{dead.id}: enqueued as {claimed.job.id}, number 1 of its queue\n"
    assert claimed.suspect
    same = replace(dead, id=claimed.job.id, version="a@2", reply_to=claimed.job.reply_to)
    same = replace(same, fingerprint="fp_1_2")
    assert replace(claimed.job, created_s=0, traceparent=TRACEPARENT) == same
    assert claimed.job.traceparent is None
    assert await run("jobs", "dead") == "there are no dead jobs\n"
    with pytest.raises(JobFailed, match="is dead: it was retried before"):
        await run("jobs", "retry", dead.id)


async def test_a_job_whose_model_was_unloaded_stays_a_dead_letter(
    run: Run, queue: Queue, redis: Redis, keys: Keys
) -> None:
    job = await dead_job(queue, redis, keys)
    with pytest.raises(JobFailed, match="model 'a' is no longer served"):
        await run("jobs", "retry", job.id)
    assert job.id in await run("jobs", "dead")


async def dead_job(queue: Queue, redis: Redis, keys: Keys) -> Job:
    """Enqueue a job and let it kill its worker until it is a dead letter."""
    job = make_job("a@1", tenant="red", traceparent=TRACEPARENT)
    await queue.enqueue(job, LIMITS)
    worker = await Actor(queue, redis, keys, "w1", ["a@1"]).register()
    for _ in range(3):
        assert await worker.claim_ids() == [job.id]
        await worker.die()
        await worker.register()
    return job


@pytest.mark.parametrize("command", ["show", "cancel", "retry"])
async def test_an_unknown_job_is_an_error(run: Run, command: str) -> None:
    with pytest.raises(JobFailed, match="no job nothing: it never existed, or is no longer kept"):
        await run("jobs", command, "nothing")
