"""Pinned adapters are loaded before their first job, stay in memory, and on enough workers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from scripted_engine import ScriptedEngine, read_scripted_adapter, scripted_model
from worker_support import Client, register, running_with, until

from shared.protocol.capabilities import Needs
from shared.protocol.ids import AdapterVersion
from shared.settings import WorkerSettings
from shared.store.adapters.pins import PinnedVersion, Pins
from shared.store.adapters.registry import Registry
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews
from worker.adapters import pin_keeper, replica_policy, retention
from worker.adapters.advertiser import Advertiser
from worker.adapters.pin_keeper import must_keep, must_load
from worker.engine_simulated.adapters import SimulatedAdapter
from worker.service import Worker

A, B, C, D = (AdapterVersion(f"{name}@v1") for name in "abcd")
NEW_A = AdapterVersion("a@v2")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pin_keeper, "LOOK_S", 0.05)
    monkeypatch.setattr(retention, "SWEEP_S", 0.05)
    monkeypatch.setattr(replica_policy, "KEPT_STEALS", 0)


@pytest.fixture
def pins(redis: Redis, keys: Keys) -> Pins:
    return Pins(redis, keys)


@asynccontextmanager
async def workers(
    redis: Redis, pool: str, number: int, *, max_adapters: int = 2
) -> AsyncIterator[Sequence[Worker]]:
    settings = WorkerSettings(model="scripted", pool=pool)
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                running_with(
                    redis,
                    settings,
                    scripted_model(ScriptedEngine(step_s=0.002, max_adapters=max_adapters)),
                )
            )
            for _ in range(number)
        ]


async def num_holders(views: PoolViews, version: AdapterVersion) -> int:
    return sum(version in worker.residents for worker in await views.workers())


async def hold(views: PoolViews, version: AdapterVersion, number: int) -> bool:
    return await num_holders(views, version) == number


def num_loads(started: Sequence[Worker]) -> int:
    return sum(worker.parts.adapters.residency.stats.totals["loads"] for worker in started)


async def ask(client: Client, *versions: AdapterVersion) -> None:
    for version in versions:
        await client.end_of(await client.send(version=version, max_tokens=2))


@pytest.mark.parametrize(
    ("replicas", "holders", "is_held", "loads", "keeps"),
    [
        (1, 0, False, True, False),
        (1, 1, False, False, False),
        (1, 1, True, False, True),
        (2, 1, True, False, True),
        (2, 1, False, True, False),
        (2, 3, True, False, False),
    ],
)
def test_a_worker_loads_what_too_few_hold_and_keeps_what_no_more_than_enough_hold(
    replicas: int, holders: int, is_held: bool, loads: bool, keeps: bool
) -> None:
    pinned = PinnedVersion(
        version=A, replicas=replicas, num_holders=holders, is_held=is_held, needs=Needs(rank=8)
    )
    assert (must_load(pinned), must_keep(pinned)) == (loads, keeps)


async def test_a_pinned_adapter_is_loaded_on_enough_workers_without_a_job(
    client: Client, redis: Redis, pool: str, registry: Registry, pins: Pins
) -> None:
    await register(registry, A)
    async with workers(redis, pool, 3) as started:
        assert await num_holders(client.views, A) == 0
        await pins.set("a", 2, by="")
        for version in (A, NEW_A):
            await register(registry, version)
            await until(lambda version=version: hold(client.views, version, 2))
        assert num_loads(started) == 4, "no worker loads more than the pool needs"


async def test_a_load_is_known_before_another_worker_may_load(
    client: Client,
    redis: Redis,
    pool: str,
    registry: Registry,
    pins: Pins,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the keeper reports what it holds, as if all other reports came late."""
    monkeypatch.setattr(Advertiser, "run", lambda _: asyncio.sleep(60))
    await register(registry, A)
    async with workers(redis, pool, 3) as started:
        await pins.set("a", 2, by="")
        await until(lambda: hold(client.views, A, 2))
        assert num_loads(started) == 2


async def test_a_pin_that_cannot_be_loaded_does_not_end_the_worker(
    client: Client, redis: Redis, pool: str, registry: Registry, pins: Pins
) -> None:
    def read(name: str, source: str) -> SimulatedAdapter:
        if name == "a":
            raise OSError("scripted to fail")
        return read_scripted_adapter(name, source)

    settings = WorkerSettings(model="scripted", pool=pool)
    engine = ScriptedEngine(step_s=0.002, max_adapters=2)
    async with running_with(redis, settings, scripted_model(engine, read)) as worker:
        for version in (A, B):
            await register(registry, version)
        await pins.set("a", 1, by="")
        await until(lambda: A in worker.parts.adapters.pin_keeper.failed)
        await ask(client, B)


async def test_a_pinned_adapter_is_not_evicted_for_others(
    client: Client, redis: Redis, pool: str, registry: Registry, pins: Pins
) -> None:
    async with workers(redis, pool, 1) as (worker,):
        for version in (A, B, C, D):
            await register(registry, version)
        await ask(client, B, C)
        assert not worker.parts.adapters.residency.is_resident(A)
        await pins.set("a", 1, by="")
        await until(lambda: A in worker.parts.adapters.residency.pinned)
        await ask(client, B, C, D, B)
        assert worker.parts.adapters.residency.is_resident(A)
        assert worker.parts.adapters.residency.held >= {A, B}
        await pins.set("a", 0, by="")
        await until(lambda: not worker.parts.adapters.residency.pinned)
        await ask(client, C, D)
        assert not worker.parts.adapters.residency.is_resident(A)


async def test_more_pins_than_memory_keep_no_other_adapter_from_being_served(
    client: Client, redis: Redis, pool: str, registry: Registry, pins: Pins
) -> None:
    async with workers(redis, pool, 1, max_adapters=1) as (worker,):
        for version in (A, B, C):
            await register(registry, version)
        for name in ("a", "b"):
            await pins.set(name, 1, by="")
        await until(lambda: bool(worker.parts.adapters.residency.pinned))
        await ask(client, C, B, A, C)


async def test_replicas_that_are_pinned_are_not_given_up(
    client: Client, redis: Redis, pool: str, registry: Registry, pins: Pins
) -> None:
    await register(registry, A)
    async with workers(redis, pool, 2) as started:
        await pins.set("a", 2, by="")
        await until(lambda: all(A in w.parts.adapters.residency.pinned for w in started))
        await ask(client, *[A] * 20)
        assert await num_holders(client.views, A) == 2
        await pins.set("a", 1, by="")
        await until(lambda: hold(client.views, A, 1))
