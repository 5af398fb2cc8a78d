"""Incidents that the scripts record, and the totals and samples that workers and sweeps add."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from queue_support import INFO, LIMITS, Actor, make_adapter, make_job

from shared.protocol.ids import AdapterVersion
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.history import HistoryView
from shared.store.views.incidents import Incident, IncidentsView

NewActor = Callable[..., Actor]
A1, A2 = AdapterVersion("a@1"), AdapterVersion("a@2")


@pytest.fixture
def incidents(redis: Redis, keys: Keys) -> IncidentsView:
    return IncidentsView(redis, keys)


@pytest.fixture
def registry(redis: Redis, keys: Keys) -> Registry:
    return Registry(redis, keys)


@pytest.fixture
def actor(queue: Queue, redis: Redis, keys: Keys) -> NewActor:
    return lambda name, holds=(): Actor(queue, redis, keys, name, list(holds))


async def oldest_first(view: IncidentsView) -> list[Incident]:
    return (await view.newest(100))[::-1]


async def test_joining_leaving_and_dying_workers_are_incidents(
    incidents: IncidentsView, actor: NewActor, queue: Queue
) -> None:
    job = make_job()
    await queue.enqueue(job, LIMITS)
    one, two = await actor("w1", ["a@1"]).register(), await actor("w2", ["a@1"]).register()
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
    incidents: IncidentsView, actor: NewActor, queue: Queue
) -> None:
    worker = await actor("w1").register()
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
    actor: NewActor, queue: Queue, redis: Redis, keys: Keys
) -> None:
    one, two = await actor("w1").register(), await actor("w2").register()
    new = replace(INFO, tokens_total=5, first_tokens=(0, 2, 1))
    for _ in range(2):  # the reply to the first call was lost
        await queue.beat(one.id, lease_ms=60_000, info=new)
    await queue.beat(two.id, lease_ms=60_000, info=replace(INFO, tokens_total=7))  # older
    await queue.reap()
    again = await actor("w1-again").register()  # the same process after the loss of its lease
    await queue.beat(again.id, lease_ms=60_000, info=INFO)
    totals = {name: int(number) for name, number in (await redis.hgetall(keys.served)).items()}  # type: ignore[misc]
    assert totals[b"tokens"] == 12
    (sample,) = await HistoryView(redis, keys).newest(10)
    assert sample.tokens == 12


async def test_first_tokens_are_added_up_by_bucket(
    actor: NewActor, queue: Queue, redis: Redis, keys: Keys
) -> None:
    worker = actor("w1")
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
