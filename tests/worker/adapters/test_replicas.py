"""A hot adapter becomes resident on more workers, and on fewer when it is hot no more."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from scripted_engine import ScriptedEngine, read_scripted_adapter, scripted_model
from worker_support import Client, check_answers, flood, has_workers, register, running_with, until

from shared.protocol.ids import AdapterVersion
from shared.protocol.jobs import JobState
from shared.settings import WorkerSettings
from shared.store.adapters.registry import Registry
from shared.store.redis.connection import Redis
from shared.store.views.pool_views import PoolViews
from worker.adapters import replica_policy, retention
from worker.engine_simulated.adapters import SimulatedAdapter
from worker.service import Worker

HOT, COLD, THIRD = (AdapterVersion(f"{name}@v1") for name in ("hot", "cold", "third"))
LOAD_S = 0.2
STEAL_S = 1.5 * LOAD_S


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "SWEEP_S", 0.05)
    monkeypatch.setattr(replica_policy, "KEPT_STEALS", 1)


@asynccontextmanager
async def workers(
    redis: Redis,
    pool: str,
    number: int,
    *,
    max_adapters: int = 8,
    max_num_seqs: int = 2,
    load_s: float = LOAD_S,
    adapters: tuple[str, ...] = (),
) -> AsyncIterator[list[Worker]]:
    """So many workers that hold nothing but the `adapters` that they are started with."""

    def read_slowly(name: str, source: str) -> SimulatedAdapter:
        time.sleep(load_s)
        return read_scripted_adapter(name, source)

    settings = WorkerSettings(model="scripted", pool=pool, adapters=adapters)
    async with AsyncExitStack() as stack:
        started = []
        for _ in range(number):
            engine = ScriptedEngine(step_s=0.002, max_adapters=max_adapters)
            served = scripted_model(engine, read_slowly, max_num_seqs=max_num_seqs)
            started.append(await stack.enter_async_context(running_with(redis, settings, served)))
        yield started


async def holders(views: PoolViews, version: AdapterVersion) -> int:
    return sum(version in worker.residents for worker in await views.workers())


async def hold(views: PoolViews, version: AdapterVersion, number: int) -> bool:
    return await holders(views, version) == number


def total(started: list[Worker], name: str) -> int:
    return sum(worker.parts.adapters.residency.stats.totals[name] for worker in started)


async def ask_in_turn(client: Client, version: AdapterVersion, number: int) -> None:
    """So many jobs, one after the other."""
    for seed in range(number):
        job = await client.send(version=version, seed=seed, max_tokens=3)
        assert (await client.end_of(job)).state is JobState.DONE


async def test_a_hot_adapter_has_a_second_holder_within_a_load_and_a_turn_and_one_again_after(
    client: Client, redis: Redis, pool: str, registry: Registry
) -> None:
    async with workers(redis, pool, 2) as started:
        await register(registry, HOT)
        await ask_in_turn(client, HOT, 3)
        assert await holders(client.views, HOT) == 1
        async with flood(client, HOT, 30) as sent:
            first = sent[-1]
            start = time.monotonic()
            await until(lambda: hold(client.views, HOT, 2))
            spread_s = time.monotonic() - start
            await client.end_of(first)
            turn_s = time.monotonic() - start  # of the last in the queue
            await until(lambda: len(sent) > 200)
            assert await holders(client.views, HOT) == 2, "it stays as long as it is needed"
        assert spread_s < STEAL_S + 2 * LOAD_S + turn_s
        await until(lambda: hold(client.views, HOT, 1))
        await ask_in_turn(client, HOT, 20)
        assert await holders(client.views, HOT) == 1
        assert total(started, "loads") == 2
        assert (total(started, "spreads"), total(started, "shrinks")) == (1, 1)
    check_answers(client, sent[:200])


async def test_a_copy_that_was_given_up_serves_again_without_a_load(
    client: Client, redis: Redis, pool: str, registry: Registry
) -> None:
    async with workers(redis, pool, 2) as started:
        await register(registry, HOT)
        for _ in range(3):
            async with flood(client, HOT, 30):
                await until(lambda: hold(client.views, HOT, 2))
            await until(lambda: hold(client.views, HOT, 1))
        assert total(started, "loads") == 2
        assert total(started, "shrinks") == 3


async def test_a_copy_that_was_given_up_makes_room_before_adapters_used_longer_ago(
    client: Client, redis: Redis, pool: str, registry: Registry
) -> None:
    async with workers(redis, pool, 1, max_adapters=2) as (helper,):
        for version in (COLD, THIRD):
            await register(registry, version)
        await ask_in_turn(client, COLD, 1)
        async with workers(redis, pool, 1, adapters=("hot=v1",)) as (home,):
            async with flood(client, HOT, 30):
                await until(lambda: hold(client.views, HOT, 2))
            await until(lambda: hold(client.views, HOT, 1))
            assert HOT in home.parts.adapters.residency.held
            home.parts.consumer.close()
            await ask_in_turn(client, THIRD, 1)
            assert sorted(helper._served.engine.adapters) == [COLD, THIRD]


async def test_the_last_copy_stays_when_its_other_holder_leaves(
    client: Client, redis: Redis, pool: str, registry: Registry
) -> None:
    async with workers(redis, pool, 2) as started:
        await register(registry, HOT)
        async with flood(client, HOT, 30) as sent:
            await until(lambda: hold(client.views, HOT, 2))
            home, helper = sorted(
                started, key=lambda worker: len(worker.parts.adapters.residency.replicas)
            )
            home.stop()
            await until(lambda: has_workers(client.views, 1))
            seen = len(sent)
            await until(lambda: len(sent) > seen + 50)
        await until(lambda: not helper.parts.adapters.residency.replicas)
        await ask_in_turn(client, HOT, 3)
        assert await holders(client.views, HOT) == 1
        assert total([helper], "shrinks") == 0
