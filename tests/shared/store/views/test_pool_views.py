from queue_support import INFO

from shared.protocol.jobs import JobState
from shared.protocol.results import Usage
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.views.pool_views import PoolViews


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
    assert (done.state, done.worker) == (JobState.DONE, None)
    assert done.usage == Usage(prompt_tokens=12, completion_tokens=0)
    assert done.ended_ms >= done.started_ms


async def test_an_unknown_job_has_no_view_and_no_result(views: PoolViews) -> None:
    assert await views.job("0" * 32) is None
    assert (await views.job_and_result("0" * 32))[1] is None


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


async def test_counts_include_waiting_and_ended_jobs(
    actor, enqueue, queue: Queue, views: PoolViews
) -> None:
    for version in ("a@1", "b@1", "b@1"):
        await enqueue(version)
    cancelled = await enqueue()
    await queue.cancel(cancelled.id)
    worker = await actor()
    (claimed,) = await worker.claim()
    await worker.finish(claimed)
    counts = await views.counts()
    assert (counts.waiting, counts.waiting_by_version) == (2, {"b@1": 2})
    assert counts.totals == {
        **dict.fromkeys((JobState.DONE, JobState.CANCELLED), 1),
        **dict.fromkeys((JobState.FAILED, JobState.EXPIRED, JobState.DEAD), 0),
    }


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
