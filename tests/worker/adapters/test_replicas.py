"""Replicas of hot adapters come and go, and pinned adapters stay on enough workers."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from scripted_engine import ScriptedEngine, read_scripted_adapter
from worker_support import Client, check_answers, flood, has_workers, until

from shared.protocol.capabilities import Needs
from shared.protocol.ids import AdapterVersion
from shared.protocol.jobs import JobState
from shared.store.adapters.pins import PinnedVersion, Pins
from worker.adapters import pin_keeper, replica_policy, retention
from worker.adapters.advertiser import Advertiser
from worker.adapters.pin_keeper import must_keep, must_load
from worker.engine_simulated.adapters import SimulatedAdapter
from worker.service import Worker

HOT, COLD, THIRD = (AdapterVersion(f"{name}@v1") for name in ("hot", "cold", "third"))
A, B, C, D = (AdapterVersion(f"{name}@v1") for name in "abcd")
NEW_A = AdapterVersion("a@v2")
LOAD_S = 0.2
STEAL_S = 1.5 * LOAD_S


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pin_keeper, "LOOK_S", 0.05)
    monkeypatch.setattr(retention, "SWEEP_S", 0.05)
    monkeypatch.setattr(replica_policy, "KEPT_STEALS", 1)


@pytest.fixture
def pins(client: Client, monkeypatch: pytest.MonkeyPatch) -> Pins:
    monkeypatch.setattr(replica_policy, "KEPT_STEALS", 0)
    return Pins(client.redis, client.keys)


def read_slowly(name: str, source: str) -> SimulatedAdapter:
    time.sleep(LOAD_S)
    return read_scripted_adapter(name, source)


SLOW: dict[str, Any] = {"read": read_slowly, "max_num_seqs": 2}
"""Options of workers that take long to load an adapter, and for whom few jobs are a backlog."""


@asynccontextmanager
async def workers(
    client: Client, number: int, *, max_adapters: int = 2, **options: Any
) -> AsyncIterator[list[Worker]]:
    """So many workers that hold nothing but the adapters that they are started with."""
    async with AsyncExitStack() as stack:
        started = []
        for _ in range(number):
            engine = ScriptedEngine(step_s=0.002, max_adapters=max_adapters)
            started.append(await stack.enter_async_context(client.worker(engine, **options)))
        yield started


async def num_holders(client: Client, version: AdapterVersion) -> int:
    return sum(version in worker.residents for worker in await client.views.workers())


async def hold(client: Client, version: AdapterVersion, number: int) -> bool:
    return await num_holders(client, version) == number


def total(started: list[Worker], name: str) -> int:
    return sum(worker.parts.adapters.residency.stats.totals[name] for worker in started)


async def ask(client: Client, *versions: AdapterVersion) -> None:
    """Run so many jobs, one after the other."""
    for seed, version in enumerate(versions):
        job = await client.send(version=version, seed=seed, max_tokens=3)
        assert (await client.end_of(job)).state is JobState.DONE


@pytest.mark.slow
async def test_a_hot_adapter_has_a_second_holder_within_a_load_and_a_turn_and_one_again_after(
    client: Client,
) -> None:
    async with workers(client, 2, **SLOW) as started:
        await client.register(HOT)
        await ask(client, *[HOT] * 3)
        assert await num_holders(client, HOT) == 1
        async with flood(client, HOT, 30) as sent:
            first = sent[-1]
            start = time.monotonic()
            await until(lambda: hold(client, HOT, 2))
            spread_s = time.monotonic() - start
            await client.end_of(first)
            turn_s = time.monotonic() - start  # of the last in the queue
            await until(lambda: len(sent) > 200)
            assert await num_holders(client, HOT) == 2, "it stays as long as it is needed"
        assert spread_s < STEAL_S + 2 * LOAD_S + turn_s
        await until(lambda: hold(client, HOT, 1))
        await ask(client, *[HOT] * 20)
        assert await num_holders(client, HOT) == 1
        assert total(started, "loads") == 2
        assert (total(started, "spreads"), total(started, "shrinks")) == (1, 1)
        async with flood(client, HOT, 30):
            await until(lambda: hold(client, HOT, 2))
        await until(lambda: hold(client, HOT, 1))
        assert total(started, "shrinks") == 2
        assert total(started, "loads") == 2, "the copy that was given up serves again"
    check_answers(client, sent[:200])


async def test_a_copy_that_was_given_up_makes_room_before_adapters_used_longer_ago(
    client: Client,
) -> None:
    async with workers(client, 1, **SLOW) as (helper,):
        for version in (COLD, THIRD):
            await client.register(version)
        await ask(client, COLD)
        async with workers(client, 1, adapters=("hot=v1",), **SLOW) as (home,):
            async with flood(client, HOT, 30):
                await until(lambda: hold(client, HOT, 2))
            await until(lambda: hold(client, HOT, 1))
            assert HOT in home.parts.adapters.residency.held
            home.parts.consumer.close()
            await ask(client, THIRD)
            assert sorted(helper._served.engine.adapters) == [COLD, THIRD]


async def test_the_last_copy_stays_when_its_other_holder_leaves(client: Client) -> None:
    async with workers(client, 2, **SLOW) as started:
        await client.register(HOT)
        async with flood(client, HOT, 30) as sent:
            await until(lambda: hold(client, HOT, 2))
            home, helper = sorted(
                started, key=lambda worker: len(worker.parts.adapters.residency.replicas)
            )
            home.stop()
            await until(lambda: has_workers(client.views, 1))
            seen = len(sent)
            await until(lambda: len(sent) > seen + 50)
        await until(lambda: not helper.parts.adapters.residency.replicas)
        await ask(client, *[HOT] * 3)
        assert await num_holders(client, HOT) == 1
        assert total([helper], "shrinks") == 0


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


@pytest.mark.parametrize("advertises", [True, False])
async def test_a_pinned_adapter_is_loaded_on_enough_workers_without_a_job(
    client: Client, pins: Pins, monkeypatch: pytest.MonkeyPatch, advertises: bool
) -> None:
    """A load is known before another worker may load, even if all other reports come late."""
    if not advertises:
        monkeypatch.setattr(Advertiser, "run", lambda _: asyncio.sleep(60))
    await client.register(A)
    async with workers(client, 3) as started:
        assert await num_holders(client, A) == 0
        await pins.set("a", 2, by="")
        for version in (A, NEW_A):
            await client.register(version)
            await until(lambda version=version: hold(client, version, 2))
        assert total(started, "loads") == 4, "no worker loads more than the pool needs"


async def test_a_pin_that_cannot_be_loaded_does_not_end_the_worker(
    client: Client, pins: Pins
) -> None:
    def read(name: str, source: str) -> SimulatedAdapter:
        if name == "a":
            raise OSError("scripted to fail")
        return read_scripted_adapter(name, source)

    async with workers(client, 1, read=read) as (worker,):
        for version in (A, B):
            await client.register(version)
        await pins.set("a", 1, by="")
        await until(lambda: A in worker.parts.adapters.pin_keeper.failed)
        await ask(client, B)


async def test_a_pinned_adapter_is_not_evicted_for_others(client: Client, pins: Pins) -> None:
    async with workers(client, 1) as (worker,):
        for version in (A, B, C, D):
            await client.register(version)
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
    client: Client, pins: Pins
) -> None:
    async with workers(client, 1, max_adapters=1) as (worker,):
        for version in (A, B, C):
            await client.register(version)
        for name in ("a", "b"):
            await pins.set(name, 1, by="")
        await until(lambda: bool(worker.parts.adapters.residency.pinned))
        await ask(client, C, B, A, C)


async def test_replicas_that_are_pinned_are_not_given_up(client: Client, pins: Pins) -> None:
    await client.register(A)
    async with workers(client, 2) as started:
        await pins.set("a", 2, by="")
        await until(lambda: all(A in w.parts.adapters.residency.pinned for w in started))
        await ask(client, *[A] * 20)
        assert await num_holders(client, A) == 2
        await pins.set("a", 1, by="")
        await until(lambda: hold(client, A, 1))
