"""Lists of a tenant's jobs, and estimates of waiting times."""

from dataclasses import replace
from typing import Any

import pytest
from queue_support import LIMITS, Actor, make_job

from shared.errors import QueueFull
from shared.protocol.answers import AnswerSpec
from shared.protocol.jobs import JobState
from shared.store.connection import Redis
from shared.store.keys import Keys
from shared.store.queue import Queue
from shared.store.views.pool_views import PoolViews


async def test_a_tenant_s_jobs_are_listed_newest_first(
    queue: Queue, views: PoolViews, redis: Redis, keys: Keys
) -> None:
    jobs = [make_job(tenant="t") for _ in range(5)]
    for number, job in enumerate(jobs):
        await queue.enqueue(job, LIMITS)
        await redis.zadd(keys.jobs("t"), {job.id: number})
    await queue.enqueue(make_job(tenant="other"), LIMITS)
    ids = [job.id for job in reversed(jobs)]
    assert [view.id for view in await views.jobs("t", limit=3)] == ids[:3]
    assert [view.id for view in await views.jobs("t", limit=3, after=ids[2])] == ids[3:]
    assert await views.jobs("t", limit=3, after=make_job().id) == []
    assert await views.jobs("nobody", limit=3) == []


async def test_jobs_are_filtered_by_state_and_model(
    queue: Queue, views: PoolViews, actor: Any
) -> None:
    worker: Actor = await actor()
    done, waiting, other = make_job("a@1"), make_job("a@1"), make_job("b@1")
    await queue.enqueue(done, LIMITS)
    (claimed,) = await worker.claim()
    await worker.finish(claimed)
    for job in (waiting, other):
        await queue.enqueue(job, LIMITS)
    states = frozenset({JobState.QUEUED})
    found = await views.jobs("default", limit=9, states=states)
    assert {view.id for view in found} == {waiting.id, other.id}
    assert [view.id for view in await views.jobs("default", limit=9, model="b")] == [other.id]
    found = await views.jobs("default", limit=9, states=frozenset({JobState.DONE}), model="a")
    assert [view.id for view in found] == [done.id]


async def test_the_format_of_an_answer_outlives_its_request(
    queue: Queue, views: PoolViews, actor: Any
) -> None:
    worker: Actor = await actor()
    job = make_job(include_usage=True, service_tier="flex", fingerprint="fp")
    await queue.enqueue(job, LIMITS)
    (claimed,) = await worker.claim()
    assert claimed.job == replace(job, include_usage=False, service_tier=None)
    await worker.finish(claimed)
    view = await views.job(job.id)
    assert view is not None
    assert view.spec == AnswerSpec.of(job)
    assert view.spec.service_tier == "flex"


async def test_a_job_knows_the_time_to_its_deadline(queue: Queue, views: PoolViews) -> None:
    job = make_job(deadline_ms=50_000)
    await queue.enqueue(job, LIMITS)
    view = await views.job(job.id)
    assert view is not None
    assert 40_000 < view.left_ms <= 50_000


async def test_the_wait_is_estimated_from_the_rate_of_answered_jobs(
    queue: Queue, views: PoolViews, actor: Any, redis: Redis, keys: Keys
) -> None:
    worker: Actor = await actor()
    jobs = [make_job("a@1") for _ in range(4)] + [make_job("b@1") for _ in range(4)]
    for job in jobs:
        await queue.enqueue(job, LIMITS)
    wait = await views.wait(jobs[1].id)
    assert wait is not None
    assert (wait.position, wait.num_waiting, wait.estimated_s) == (2, 4, None)
    (claimed,) = await worker.claim(sequences=1)
    assert await views.wait(claimed.job.id) is None
    await worker.finish(claimed)
    await redis.hset(keys.counters, "rate", 2)
    wait = await views.wait(jobs[2].id)
    assert wait is not None
    assert wait.position == 2
    # Two of three jobs of its queue, and so two thirds of all seven, at two jobs per second.
    assert wait.estimated_s == pytest.approx(7 * 2 / 3 / 2, rel=0.1)


@pytest.mark.parametrize(("rate", "expected_s"), [(0, 1), (0.01, 10), (0.001, 60), (100, 1)])
async def test_a_refused_client_waits_for_a_tenth_of_the_queue(
    queue: Queue, redis: Redis, keys: Keys, rate: float, expected_s: int
) -> None:
    await queue.enqueue(make_job(), LIMITS)
    seconds, _ = await redis.time()
    await redis.hset(keys.counters, mapping={"rate": rate, "rated": seconds * 1000})
    with pytest.raises(QueueFull) as raised:
        await queue.enqueue(make_job(), replace(LIMITS, max_waiting=1))
    assert raised.value.retry_after_s == pytest.approx(expected_s, abs=2 if expected_s > 1 else 0)
