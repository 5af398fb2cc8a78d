"""What the versions of a pool do at present, its incidents, and totals and samples of its work."""

from dataclasses import replace
from typing import Any

import pytest
from adapter_versions import BASE
from queue_support import INFO, LIMITS, Actor, make_adapter, make_job

from shared.protocol.ids import AdapterVersion
from shared.store.adapters.candidates import CandidateMode, Candidates
from shared.store.adapters.registry import Registry
from shared.store.adapters.residency import ResidencyStore
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views import activity as module
from shared.store.views.activity import Activity, ActivityView
from shared.store.views.history import HistoryView
from shared.store.views.incidents import Incident, IncidentsView
from shared.store.views.pool_views import PoolViews


@pytest.fixture
def view(redis: Redis, keys: Keys, views: PoolViews, registry: Registry) -> ActivityView:
    return ActivityView(redis, keys, views)


def by_version(activity: Activity) -> dict[str, tuple[bool, int, int]]:
    return {
        each.version: (each.is_current, each.waiting, each.running) for each in activity.versions
    }


async def test_versions_with_jobs_and_current_versions_are_listed_with_the_base_first(
    view: ActivityView, registry: Registry, queue: Queue, redis: Redis, keys: Keys
) -> None:
    for version in ("a@1", "b@1"):
        await registry.load_adapter(make_adapter(version), replace=False)
    for version in ("base@1", "a@1", "a@1"):
        await queue.enqueue(make_job(version), LIMITS)
    worker = await Actor(queue, redis, keys, "w1", ["a@1"]).register()
    (claimed,) = await worker.claim(sequences=1)
    await registry.load_adapter(make_adapter("a@2"), replace=True)

    activity = await view.read(BASE.version, active=())
    assert list(by_version(activity)) == ["base@1", "a@1", "a@2", "b@1"]
    assert by_version(activity) == {
        "base@1": (True, 1, 0),
        "a@1": (False, 1, 1),
        "a@2": (True, 0, 0),
        "b@1": (True, 0, 0),
    }
    assert activity.num_adapters == 2
    base, old, *rest = activity.versions
    assert (base.is_base, old.is_base) == (True, False)
    assert base.next_waited_ms is not None
    assert [each.next_waited_ms for each in rest] == [None, None]

    await worker.finish(claimed, used=5)
    used = {each.version: each for each in (await view.read(BASE.version, ())).versions}
    assert (used["a@1"].requests, used["a@1"].tokens) == (1, 5)


async def test_a_candidate_is_listed_with_its_share(
    view: ActivityView,
    registry: Registry,
    redis: Redis,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for version in ("a@1", "b@1"):
        await registry.load_adapter(make_adapter(version), replace=False)
    await registry.add_candidate(make_adapter("b@2"), keep_versions=4, by="")
    candidates = Candidates(redis, keys)
    await candidates.set("b", None, mode=CandidateMode.SHADOW, percent=12.5, by="")
    for most in (500, 3):  # candidates are left out last
        monkeypatch.setattr(module, "MAX_VERSIONS", most)
        versions = (await view.read(BASE.version, ())).versions
        shares = {each.version: each.share for each in versions if each.share}
        assert [(name, share.mode, share.percent) for name, share in shares.items()] == [
            ("b@2", CandidateMode.SHADOW, 12.5)
        ]
        assert not by_version(await view.read(BASE.version, ()))["b@2"][0]
    await candidates.promote("b", by="")
    assert not any(each.share for each in (await view.read(BASE.version, ())).versions)


async def test_the_base_model_has_a_usage_too(
    view: ActivityView, queue: Queue, redis: Redis, keys: Keys
) -> None:
    await queue.enqueue(make_job("base@1"), LIMITS)
    worker = await Actor(queue, redis, keys, "w1", ["base@1"]).register()
    (claimed,) = await worker.claim()
    await worker.finish(claimed, used=5)
    (base,) = (await view.read(BASE.version, ())).versions
    assert (base.requests, base.tokens, base.running) == (1, 5, 0)


async def test_a_load_names_its_worker(
    view: ActivityView, registry: Registry, queue: Queue, redis: Redis, keys: Keys
) -> None:
    await registry.load_adapter(make_adapter("a@1"), replace=False)
    await queue.enqueue(make_job("a@1"), LIMITS)
    worker = await Actor(queue, redis, keys, "w1", []).register()
    assert await ResidencyStore(redis, keys).start_load(worker.id, AdapterVersion("a@1"))
    _, adapter = (await view.read(BASE.version, ())).versions
    assert adapter.loader == worker.id


async def test_names_are_read_again_only_after_they_have_changed(
    view: ActivityView, registry: Registry, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_reads, read = 0, type(redis).smembers

    def counting(client: Redis, key: str) -> Any:
        nonlocal num_reads
        num_reads += 1
        return read(client, key)

    monkeypatch.setattr(type(redis), "smembers", counting)
    for version in ("a@1", "b@1"):
        await registry.load_adapter(make_adapter(version), replace=False)
        await view.read(BASE.version, ())
    assert list(by_version(await view.read(BASE.version, ()))) == ["base@1", "a@1", "b@1"]
    assert num_reads == 2
    await registry.unload_adapter("a")
    await registry.load_adapter(make_adapter("c@1"), replace=False)
    assert list(by_version(await view.read(BASE.version, ()))) == ["base@1", "b@1", "c@1"]


async def test_a_large_pool_is_read_in_part_and_versions_with_jobs_come_first(
    view: ActivityView, registry: Registry, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_VERSIONS", 4)
    for number in range(10):
        await registry.load_adapter(make_adapter(f"a{number}@1"), replace=False)
    await queue.enqueue(make_job("a9@1"), LIMITS)
    activity = await view.read(BASE.version, active=[AdapterVersion("a7@1")])
    assert {"base@1", "a9@1", "a7@1"} < set(by_version(activity))
    assert len(activity.versions) == 4
    assert activity.num_adapters == 10
    await queue.enqueue(make_job("a8@1"), LIMITS)
    active = [AdapterVersion(f"a{number}@1") for number in (9, 8, 7)]
    activity = await view.read(BASE.version, active=active)
    # A version that waits and runs counts once.
    assert list(by_version(activity)) == ["base@1", "a7@1", "a8@1", "a9@1"]


A1, A2 = AdapterVersion("a@1"), AdapterVersion("a@2")


@pytest.fixture
def incidents(redis: Redis, keys: Keys) -> IncidentsView:
    return IncidentsView(redis, keys)


async def oldest_first(view: IncidentsView) -> list[Incident]:
    return (await view.newest(100))[::-1]


async def test_joining_leaving_and_dying_workers_are_incidents(
    incidents: IncidentsView, actor: Any, queue: Queue
) -> None:
    job = make_job()
    await queue.enqueue(job, LIMITS)
    one, two = await actor("w1"), await actor("w2")
    assert await one.claim_ids() == [job.id]
    await one.register()  # a repeated call, after a lost reply
    await one.die()
    await queue.leave(two.id)
    found = [(each.kind, each.worker, each.num_jobs) for each in await oldest_first(incidents)]
    assert found == [
        ("worker_joined", "w1", None),
        ("worker_joined", "w2", None),
        ("worker_lost", "w1", 1),
        ("worker_left", "w2", 0),
    ]
    await queue.leave(two.id)
    assert len(await incidents.newest(100)) == len(found)


async def test_a_stall_is_one_incident_until_the_engine_continues(
    incidents: IncidentsView, actor: Any, queue: Queue
) -> None:
    worker = await actor()
    for step_ms in (0, 600, 700, 0, 800):
        info = replace(INFO, stall_ms=1000, step_ms=step_ms)
        await queue.beat(worker.id, lease_ms=60_000, info=info)
    kinds = [each.kind for each in await oldest_first(incidents)]
    assert kinds == ["worker_joined", "worker_stalled", "worker_stalled"]


async def test_only_the_newest_incidents_are_kept(
    incidents: IncidentsView, registry: Registry, redis: Redis, keys: Keys
) -> None:
    await registry.load_adapter(make_adapter(A1), replace=False)
    await registry.load_adapter(make_adapter(A2), replace=True)
    for _ in range(500):
        await registry.roll_back_adapter("a")
    assert await redis.xlen(keys.incidents) < 400
    newest = await incidents.newest(2)
    assert newest[0].order > newest[1].order


async def test_heartbeats_add_up_what_all_workers_serve_also_in_a_mixed_pool(
    actor: Any, queue: Queue, redis: Redis, keys: Keys
) -> None:
    one, two = await actor("w1"), await actor("w2")
    new = replace(INFO, tokens_total=5, first_tokens=(0, 2, 1))
    for _ in range(2):  # the reply to the first call was lost
        await queue.beat(one.id, lease_ms=60_000, info=new)
    await queue.beat(two.id, lease_ms=60_000, info=replace(INFO, tokens_total=7))  # older
    await queue.reap()
    again = await actor("w1-again")  # the same process after the loss of its lease
    await queue.beat(again.id, lease_ms=60_000, info=INFO)
    totals = {name: int(number) for name, number in (await redis.hgetall(keys.served)).items()}  # type: ignore[misc]
    assert totals[b"tokens"] == 12
    (sample,) = await HistoryView(redis, keys).newest(10)
    assert sample.tokens == 12


async def test_first_tokens_are_added_up_by_bucket(queue: Queue, redis: Redis, keys: Keys) -> None:
    worker = Actor(queue, redis, keys, "w1", [])
    worker.info = replace(INFO, first_tokens=(0, 0, 0))
    await worker.register()
    for counts in ((0, 2, 1), (1, 2, 4)):
        info = replace(INFO, first_tokens=counts)
        await queue.beat(worker.id, lease_ms=60_000, info=info)
    await queue.reap()
    (sample,) = await HistoryView(redis, keys).newest(10)
    assert sample.first_tokens[:4] == (1, 2, 4, 0)
    assert len(sample.first_tokens) == 25


async def test_samples_from_before_a_clock_was_set_back_are_left_out(
    redis: Redis, keys: Keys
) -> None:
    view = HistoryView(redis, keys)
    for time_ms in (1000, 2000, 3000):
        await redis.lpush(keys.history, f"{time_ms} 0 0 0 0")  # type: ignore[misc]
    assert [sample.time_ms for sample in await view.newest(2)] == [2000, 3000]
    for time_ms in (1500, 2500):
        await redis.lpush(keys.history, f"{time_ms} 0 0 0 0")  # type: ignore[misc]
    for limit in (2, 10):
        assert [sample.time_ms for sample in await view.newest(limit)] == [1500, 2500]
