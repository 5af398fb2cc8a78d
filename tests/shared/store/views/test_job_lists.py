"""Lists of a tenant's jobs, and estimates of waiting times."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from queue_support import LIMITS, Actor, make_job

from shared.errors import QueueFull
from shared.protocol.answers import AnswerSpec
from shared.protocol.ids import JobId
from shared.protocol.jobs import MAX_LEFT_MS, JobState
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views import pool_views
from shared.store.views.pool_views import MAX_LOOKED, PoolViews


async def listed(
    views: PoolViews, tenant: str = "default", **query: Any
) -> tuple[list[JobId], JobId | None, bool]:
    """Return the ids of a page, its cursor, and whether there is a next page."""
    page = await views.jobs(tenant, **{"limit": 9, **query})
    assert page is not None
    return [view.id for view in page.jobs], page.last_id, page.has_more


async def enqueue_all(queue: Queue, redis: Redis, keys: Keys, models: Sequence[str]) -> list[JobId]:
    ids = []
    for number, model in enumerate(models):
        job = make_job(f"{model}@1")
        await queue.enqueue(job, LIMITS)
        await redis.zadd(keys.jobs("default"), {job.id: number})
        ids.append(job.id)
    return ids[::-1]


async def test_a_tenant_s_jobs_are_listed_newest_first(
    queue: Queue, views: PoolViews, redis: Redis, keys: Keys
) -> None:
    jobs = [make_job(tenant="t") for _ in range(5)]
    for number, job in enumerate(jobs):
        await queue.enqueue(job, LIMITS)
        await redis.zadd(keys.jobs("t"), {job.id: number})
    await queue.enqueue(make_job(tenant="other"), LIMITS)
    ids = [job.id for job in reversed(jobs)]
    assert await listed(views, "t", limit=3) == (ids[:3], ids[2], True)
    assert await listed(views, "t", limit=3, after=ids[2]) == (ids[3:], ids[4], False)
    assert await views.jobs("t", limit=3, after=make_job().id) is None
    assert await listed(views, "nobody") == ([], None, False)


async def test_a_page_with_a_rare_filter_looks_at_a_limited_number_of_jobs(
    queue: Queue, views: PoolViews, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_views, "MAX_LOOKED", 3)
    ids = await enqueue_all(queue, redis, keys, ["rare", *"a" * 4, "rare", "a"])
    assert await listed(views, model="rare") == ([ids[1]], ids[2], True)
    assert await listed(views, model="rare", after=ids[2]) == ([], ids[5], True)
    assert await listed(views, model="rare", after=ids[5]) == ([ids[6]], ids[6], False)


async def test_a_list_reads_no_more_jobs_than_it_may(
    queue: Queue, views: PoolViews, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enqueue_all(queue, redis, keys, "a" * 10)
    await redis.zadd(keys.jobs("default"), {f"old-{n}": -n for n in range(MAX_LOOKED)})
    looked: list[JobId] = []
    read = PoolViews._read_jobs

    async def counting_read(views: PoolViews, ids: Sequence[JobId]) -> Any:
        looked.extend(ids)
        return await read(views, ids)

    monkeypatch.setattr(PoolViews, "_read_jobs", counting_read)
    found, last_id, has_more = await listed(views, model="none")
    assert len(looked) == MAX_LOOKED
    assert (found, last_id, has_more) == ([], looked[-1], True)
    found, _, has_more = await listed(views, model="none", after=last_id)
    assert len(looked) == MAX_LOOKED + 10
    assert (found, has_more) == ([], False)


async def test_a_full_page_at_the_limit_continues_after_the_last_job_looked_at(
    queue: Queue, views: PoolViews, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_views, "MAX_LOOKED", 3)
    ids = await enqueue_all(queue, redis, keys, "baaab")
    assert await listed(views, model="b", limit=1) == ([ids[0]], ids[2], True)
    assert await listed(views, model="b", limit=1, after=ids[2]) == ([ids[4]], ids[4], False)


async def test_a_cursor_whose_record_has_expired_still_works(
    queue: Queue, views: PoolViews, redis: Redis, keys: Keys
) -> None:
    ids = await enqueue_all(queue, redis, keys, "aaa")
    await redis.delete(keys.job(ids[1]))
    assert await listed(views, after=ids[1]) == ([ids[2]], ids[2], False)


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
    assert set((await listed(views, states=states))[0]) == {waiting.id, other.id}
    assert (await listed(views, model="b"))[0] == [other.id]
    assert (await listed(views, states=frozenset({JobState.DONE}), model="a"))[0] == [done.id]


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


async def test_a_job_knows_the_time_to_its_deadline_until_it_ends(
    queue: Queue, views: PoolViews, actor: Any
) -> None:
    job = make_job(deadline_ms=50_000)
    await queue.enqueue(job, LIMITS)
    view = await views.job(job.id)
    assert view is not None
    assert 40_000 < view.left_ms <= 50_000
    worker: Actor = await actor()
    await worker.finish((await worker.claim())[0])
    view = await views.job(job.id)
    assert view is not None
    assert view.left_ms == MAX_LEFT_MS, "a failover that undoes its end must not expire it"


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
