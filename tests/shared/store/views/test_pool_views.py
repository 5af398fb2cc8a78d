"""Jobs, workers and counts of a pool, and the memory of Redis by kind of key."""

import pytest
from queue_support import INFO

from shared.protocol.ids import AdapterVersion, ApiId, JobId
from shared.protocol.jobs import JobState
from shared.protocol.results import Usage
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.key_memory import NUM_SAMPLED, OTHER, estimate_key_bytes, key_kinds
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
