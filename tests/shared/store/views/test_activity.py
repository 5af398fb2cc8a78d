"""What the versions of a pool do at present."""

from typing import Any

import pytest
from adapter_versions import BASE
from queue_support import LIMITS, Actor, make_adapter, make_job

from shared.protocol.ids import AdapterVersion
from shared.store.adapters.registry import Registry
from shared.store.adapters.residency import ResidencyStore
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views import activity as module
from shared.store.views.activity import Activity, ActivityView
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


async def test_a_version_that_waits_and_runs_counts_once_towards_the_limit(
    view: ActivityView, registry: Registry, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_VERSIONS", 4)
    for number in range(10):
        await registry.load_adapter(make_adapter(f"a{number}@1"), replace=False)
    for version in ("a8@1", "a9@1"):
        await queue.enqueue(make_job(version), LIMITS)
    active = [AdapterVersion(f"a{number}@1") for number in (9, 8, 7)]
    activity = await view.read(BASE.version, active=active)
    assert list(by_version(activity)) == ["base@1", "a7@1", "a8@1", "a9@1"]


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
