"""Views of a pool: jobs and their lists, waiting times, workers, counts, and memory of Redis."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from queue_support import INFO, LIMITS, Actor, make_job

from shared.errors import QueueFull
from shared.protocol.answers import AnswerSpec
from shared.protocol.ids import AdapterVersion, ApiId, JobId
from shared.protocol.job_filter import JobFilter
from shared.protocol.jobs import MAX_LEFT_MS, JobState
from shared.protocol.results import Usage
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views import job_lists
from shared.store.views.job_lists import MAX_LOOKED, JobLists
from shared.store.views.job_view import JobPage
from shared.store.views.key_memory import NUM_SAMPLED, OTHER, estimate_key_bytes, key_kinds
from shared.store.views.pool_views import PoolViews


async def page_of(views: PoolViews, wanted: JobFilter, **query: Any) -> JobPage | None:
    return await JobLists(views._redis, views._keys, views).page(wanted, **query)


async def listed(
    views: PoolViews,
    tenant: str | None = "default",
    *,
    limit: int = 9,
    after: JobId | None = None,
    **wanted: Any,
) -> tuple[list[JobId], JobId | None, bool]:
    """Return the ids of a page, its cursor, and whether there is a next page."""
    page = await page_of(views, JobFilter(tenant=tenant, **wanted), limit=limit, after=after)
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
    assert await page_of(views, JobFilter(tenant="t"), limit=3, after=make_job().id) is None
    assert await listed(views, "nobody") == ([], None, False)


async def test_a_page_with_a_rare_filter_looks_at_a_limited_number_of_jobs(
    queue: Queue, views: PoolViews, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_lists, "MAX_LOOKED", 3)
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
    read = PoolViews.read_jobs

    async def counting_read(views: PoolViews, ids: Sequence[JobId]) -> Any:
        looked.extend(ids)
        return await read(views, ids)

    monkeypatch.setattr(PoolViews, "read_jobs", counting_read)
    found, last_id, has_more = await listed(views, model="none")
    assert len(looked) == MAX_LOOKED
    assert (found, last_id, has_more) == ([], looked[-1], True)
    found, _, has_more = await listed(views, model="none", after=last_id)
    assert len(looked) == MAX_LOOKED + 10
    assert (found, has_more) == ([], False)


async def test_a_full_page_at_the_limit_continues_after_the_last_job_looked_at(
    queue: Queue, views: PoolViews, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_lists, "MAX_LOOKED", 3)
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


async def test_a_waiting_job_shows_its_position(enqueue, views: PoolViews) -> None:
    await enqueue()
    job = await enqueue(tenant="t")
    view = await views.job(job.id)
    assert (view.id, view.state, view.position) == (job.id, JobState.QUEUED, 2)
    assert (view.model, view.version, view.tenant) == ("a", "a@1", "t")
    assert (view.started_ms, view.ended_ms, view.worker, view.error) == (None, None, None, None)


async def test_a_running_job_shows_its_worker_and_a_finished_one_its_usage(
    actor, enqueue, views: PoolViews
) -> None:
    worker = await actor()
    job = await enqueue()
    (claimed,) = await worker.claim()
    running = await views.job(job.id)
    assert (running.state, running.worker, running.try_) == (JobState.RUNNING, worker.id, 1)
    assert (running.position, running.ended_ms) == (None, None)
    assert running.started_ms >= running.enqueued_ms
    await worker.finish(claimed, used=12)
    done = await views.job(job.id)
    assert (done.state, done.worker) == (JobState.DONE, worker.id)
    assert done.usage == Usage(prompt_tokens=12, completion_tokens=0)
    assert done.ended_ms >= done.started_ms


async def test_workers_show_their_lease_and_what_they_hold(
    actor, enqueue, views: PoolViews
) -> None:
    await actor("w2", holds=[])
    worker = await actor("w1", holds=["b@1", "a@1"], lease_ms=5000)
    await enqueue()
    await worker.claim()
    first, second = await views.workers()
    assert (first.id, first.info, first.running) == (worker.id, INFO, 1)
    assert first.residents == ("a@1", "b@1")
    assert 4000 < first.lease_left_ms <= 5000
    assert (second.id, second.residents, second.running) == ("w2", (), 0)


async def test_a_beat_renews_the_lease_and_the_info(actor, queue: Queue, views: PoolViews) -> None:
    worker = await actor(lease_ms=100)
    await queue.beat(worker.id, lease_ms=9000, info=INFO)
    (view,) = await views.workers()
    assert view.lease_left_ms > 8000


async def test_memory_has_the_used_bytes_and_the_limit_of_redis(
    redis: Redis, views: PoolViews
) -> None:
    memory = await views.memory()
    limit = (await redis.config_get("maxmemory"))["maxmemory"]
    assert memory.used > 0
    assert memory.limit == int(limit)
    assert memory.by_kind["dead"] == 0


async def test_backlogs_begin_with_the_longest_wait(
    enqueue, queue: Queue, views: PoolViews, redis, keys
) -> None:
    assert await views.backlogs() == []
    for version in ("a@1", "b@1", "b@1"):
        job = await enqueue(version)
    await redis.hincrby(keys.job((await enqueue("c@1")).id), "enq", -5000)
    first, *others = await views.backlogs()
    assert (first.version, first.waiting) == ("c@1", 1)
    assert 5000 <= first.next_waited_ms < 15_000
    assert {other.version: other.waiting for other in others} == {"a@1": 1, "b@1": 2}
    await queue.cancel(job.id)
    assert {b.version: b.waiting for b in await views.backlogs()}["b@1"] == 1


SIZE = 4000
"""Size of a value that dominates the size of its key."""


def test_every_kind_of_key_is_known() -> None:
    kinds = key_kinds()
    assert [kinds[kind] for kind in ("job", "res", "tok", "out", "q", "version")] == [False] * 6
    assert [kinds[kind] for kind in ("dead", "cnt", "ready", "base")] == [True] * 4


@pytest.fixture
async def own_redis(own_server, open_client) -> Redis:
    """Client of a database that has only the test's keys."""
    opened: Redis = open_client(own_server.url)
    return opened


async def test_an_empty_database_has_no_bytes(own_redis: Redis, keys: Keys) -> None:
    assert set((await estimate_key_bytes(own_redis, keys)).values()) == {0}


async def test_kinds_are_estimated_by_their_share_of_a_sample(own_redis: Redis, keys: Keys) -> None:
    pipe = own_redis.pipeline(transaction=False)
    for number in range(5 * NUM_SAMPLED):
        pipe.hset(keys.job(JobId(f"{number:032x}")), mapping={"body": "x" * SIZE, "try": 1})
        pipe.set(keys.result(JobId(f"{number:032x}")), "x" * SIZE)
        pipe.set(Keys("another-pool").result(JobId(f"{number:032x}")), "x" * SIZE)
        pipe.set(f"{keys.prefix}unheard-of:{number}", "x" * SIZE)
    await pipe.execute()
    found = await estimate_key_bytes(own_redis, keys)
    # Each kind is a quarter of the sample. Half of that is about six standard deviations.
    for kind in ("job", "res", OTHER):
        assert found[kind] / (5 * NUM_SAMPLED * SIZE) == pytest.approx(1.2, rel=0.6)
    assert {kind for kind, size in found.items() if size} == {"job", "res", OTHER}


async def test_kinds_of_one_key_are_measured(own_redis: Redis, keys: Keys) -> None:
    await own_redis.xadd(keys.dead, {"body": "x" * SIZE})
    await own_redis.sadd(keys.adapters, "x" * SIZE)
    for number in range(3 * NUM_SAMPLED):
        await own_redis.set(keys.result(JobId(f"{number:032x}")), "x")
    found = await estimate_key_bytes(own_redis, keys)
    assert found["dead"] == await own_redis.memory_usage(keys.dead, samples=0)
    assert found["adapters"] == await own_redis.memory_usage(keys.adapters, samples=0)


async def test_the_bytes_of_a_kind_are_those_of_its_large_keys(
    own_redis: Redis, keys: Keys
) -> None:
    await own_redis.xadd(keys.replies(ApiId("api")), {"e": "x" * SIZE})
    await own_redis.zadd(keys.queue(AdapterVersion("a@1")), {"0" * 32: 1})
    found = await estimate_key_bytes(own_redis, keys)
    assert found["out"] > SIZE / 2 > found["q"] > 0


async def test_a_server_that_forbids_sampling_reports_no_bytes_by_kind(
    own_server, open_client
) -> None:
    redis = open_client(own_server.url)
    await redis.execute_command("ACL", "SETUSER", "default", "-randomkey")
    memory = await PoolViews(redis, Keys("main")).memory()
    assert memory.used > 0
    assert memory.by_kind == {}
