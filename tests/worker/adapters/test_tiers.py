"""Adapters between their files, the host's memory and the engine, while jobs run."""

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from scripted_engine import (
    BASE,
    ScriptedAdapter,
    ScriptedEngine,
    ScriptedHost,
    expected_ids,
    read_scripted_adapter,
    scripted_model,
)
from worker_support import Client, flood, register, residents, running_with, until

from shared.errors import ErrorCode
from shared.protocol.events import End, Retry
from shared.protocol.ids import AdapterVersion
from shared.protocol.jobs import Job, JobState
from shared.settings import WorkerSettings
from shared.store.connection import Redis
from shared.store.keys import Keys
from shared.store.registry import Registry
from shared.store.residency import ResidencyStore
from worker.adapters.loader_threads import NICENESS
from worker.jobs import consumer
from worker.service import Worker

ONE, TWO, THREE = (AdapterVersion(f"{name}@v1") for name in ("one", "two", "three"))
LOAD_S = 0.4


class Files:
    """Reads scripted adapters, and remembers which and where.

    `slow` ones take LOAD_S, and `faulty` is a fault of ours.
    """

    def __init__(self) -> None:
        self.read: list[str] = []
        self.threads: list[tuple[str, int]] = []
        self.slow: set[str] = set()
        self.may_read = threading.Event()
        self.may_read.set()

    def __call__(self, name: str, source: str) -> ScriptedAdapter:
        self.read.append(name)
        niceness = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        self.threads.append((threading.current_thread().name, niceness))
        assert self.may_read.wait(60)
        if name == "faulty":
            raise RuntimeError("scripted to fail")
        if name in self.slow:
            time.sleep(LOAD_S)
        return read_scripted_adapter(name, source)


@pytest.fixture
def files() -> Files:
    return Files()


@pytest.fixture
def host() -> ScriptedHost:
    return ScriptedHost()


@pytest.fixture
def registry(redis: Redis, keys: Keys) -> Registry:
    return Registry(redis, keys)


@pytest.fixture
def serve(
    redis: Redis, pool: str, engine: ScriptedEngine, files: Files, host: ScriptedHost
) -> Callable[..., AbstractAsyncContextManager[Worker]]:
    def serve_one(**settings: object) -> AbstractAsyncContextManager[Worker]:
        chosen = WorkerSettings(model="scripted", pool=pool, **settings)
        return running_with(redis, chosen, scripted_model(engine, files, host))

    return serve_one


Serve = Callable[..., AbstractAsyncContextManager[Worker]]


async def first_token_s(client: Client, job: Job) -> float:
    """Seconds from now to the job's first token."""
    start = time.monotonic()
    await client.until_published(job, 1)
    return time.monotonic() - start


async def reports_only_the_base(client: Client) -> bool:
    return await residents(client.views) == {BASE.version}


async def one_behind_another(
    client: Client, first: AdapterVersion, second: AdapterVersion
) -> tuple[Job, Job]:
    """A long job that runs, and one that waits where only one may run."""
    running = await client.send(version=first, max_tokens=900)
    await client.until_published(running, 1)
    return running, await client.send(version=second)


async def test_adapters_are_read_and_written_on_threads_of_their_own(
    client: Client, engine: ScriptedEngine, serve: Serve, registry: Registry, files: Files
) -> None:
    async with serve(adapters=("one=v1",)):
        await register(registry, TWO)
        await client.end_of(await client.send(version=TWO))
    assert files.read == ["one", "two"]
    assert len(engine.wrote_on) == 2
    assert all(name.startswith("loader") for name in engine.wrote_on)
    assert all(name.startswith("loader") for name, _ in files.threads)
    if sys.platform == "linux":
        expected = min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
        assert {niceness for _, niceness in files.threads} == {expected}


async def test_an_adapter_that_made_room_comes_back_without_being_read(
    client: Client, engine: ScriptedEngine, serve: Serve, registry: Registry, files: Files
) -> None:
    engine.max_adapters = 1
    async with serve() as worker:
        for version in (ONE, TWO):
            await register(registry, version)
        for version in (ONE, TWO, ONE, TWO):
            assert (await client.end_of(await client.send(version=version))).state is JobState.DONE
        totals = worker.parts.adapters.residency.stats.totals
    assert files.read == ["one", "two"]
    assert totals["loads"] == 4
    assert totals["evictions"] == 3
    assert totals["reads"] == 2


async def test_what_the_device_has_no_room_for_at_the_start_waits_in_the_hosts_memory(
    client: Client, engine: ScriptedEngine, serve: Serve, files: Files
) -> None:
    engine.max_adapters = 1
    async with serve(adapters=("one=v1", "two=v1", "three=v1")):
        assert await residents(client.views) == {BASE.version, ONE}
        assert (await client.end_of(await client.send(version=THREE))).state is JobState.DONE
    assert files.read == ["one"], "they share a folder, and none is read again"


async def test_the_next_load_begins_when_one_has_ended(
    client: Client,
    engine: ScriptedEngine,
    serve: Serve,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(consumer, "MAX_PAUSE_S", 3600)
    async with serve():
        versions = [AdapterVersion(f"a{number}@v1") for number in range(7)]
        for version in versions:
            await register(registry, version)
        jobs = [await client.send(version=version, max_tokens=900) for version in versions]
        await until(lambda: len(engine.adapters) == 7)
        assert not any(isinstance(event, End) for job in jobs for event in client.events[job.id])


async def test_an_adapter_whose_job_waits_for_a_busy_worker_is_read_meanwhile(
    client: Client,
    engine: ScriptedEngine,
    serve: Serve,
    registry: Registry,
    host: ScriptedHost,
    files: Files,
    keys: Keys,
    redis: Redis,
) -> None:
    async with serve(max_num_seqs=1):
        await register(registry, ONE)
        running, waiting = await one_behind_another(client, BASE.version, ONE)
        await until(lambda: ONE in host)
        assert (await client.views.job(waiting.id)).state is JobState.QUEUED
        assert engine.adapters == []

        async def is_left_to_all() -> bool:
            return not await redis.exists(keys.loading(ONE))

        await until(is_left_to_all)
        await client.queue.cancel(running.id)
        result = await client.result_of(waiting)
    assert result.choices[0].ids == tuple(expected_ids(1, 0, 5, ONE))
    assert files.read == ["one"]


async def test_without_memory_for_copies_it_is_read_to_where_it_will_be_computed(
    client: Client,
    engine: ScriptedEngine,
    serve: Serve,
    registry: Registry,
    host: ScriptedHost,
    files: Files,
) -> None:
    host.max_bytes = 0
    async with serve(max_num_seqs=1):
        await register(registry, ONE)
        running, waiting = await one_behind_another(client, BASE.version, ONE)
        await until(lambda: ONE in engine.adapters)
        assert (await client.views.job(waiting.id)).state is JobState.QUEUED

        async def is_told() -> bool:
            return await residents(client.views) == {BASE.version, ONE}

        await until(is_told)
        await client.queue.cancel(running.id)
        result = await client.result_of(waiting)
    assert result.choices[0].ids == tuple(expected_ids(1, 0, 5, ONE))
    assert files.read == ["one"]
    assert not host.copies


async def test_what_finds_no_room_to_be_read_ahead_waits_for_its_turn(
    client: Client,
    engine: ScriptedEngine,
    serve: Serve,
    registry: Registry,
    host: ScriptedHost,
    files: Files,
) -> None:
    host.max_bytes, engine.max_adapters = 0, 1
    async with serve(max_num_seqs=1):
        for version in (ONE, TWO):
            await register(registry, version)
        running, waiting = await one_behind_another(client, ONE, TWO)
        await until(lambda: engine.num_room_questions)
        assert files.read == ["one"], "nothing is read for nothing"
        await client.queue.cancel(running.id)
        assert (await client.end_of(waiting)).state is JobState.DONE


@pytest.mark.parametrize("name", ["broken", "faulty"])
async def test_an_adapter_that_cannot_be_read_ahead_fails_its_job_when_that_is_its_turn(
    client: Client, serve: Serve, registry: Registry, files: Files, name: str
) -> None:
    async with serve(max_num_seqs=1):
        version = AdapterVersion(f"{name}@broken")
        await register(registry, version)
        running, waiting = await one_behind_another(client, BASE.version, version)
        await until(lambda: files.read == [name])
        assert (await client.views.job(waiting.id)).state is JobState.QUEUED
        await client.queue.cancel(running.id)
        assert (await client.end_of(waiting)).state is JobState.FAILED
        assert (await client.end_of(await client.send())).state is JobState.DONE


async def test_what_another_worker_reads_ahead_is_read_by_it_alone(
    client: Client,
    serve: Serve,
    registry: Registry,
    files: Files,
    keys: Keys,
    redis: Redis,
    pool: str,
) -> None:
    files.may_read.clear()
    other = WorkerSettings(model="scripted", pool=pool, max_num_seqs=1)
    served = scripted_model(ScriptedEngine(step_s=0.002), files, ScriptedHost())
    async with serve(max_num_seqs=1), running_with(redis, other, served):
        await register(registry, ONE)
        busy = [await client.send(max_tokens=900) for _ in range(2)]
        for job in busy:
            await client.until_published(job, 1)
        waiting = await client.send(version=ONE)
        await until(lambda: files.read == ["one"])
        owner = await redis.get(keys.loading(ONE))
        second = next(w for w in await client.views.workers() if w.id.encode() != owner)
        assert not await ResidencyStore(redis, keys).start_load(second.id, ONE)
        files.may_read.set()
        for job in busy:
            await client.queue.cancel(job.id)
        assert (await client.end_of(waiting)).state is JobState.DONE


async def test_a_cold_adapter_under_a_flood_of_a_hot_one_is_served_within_two_loads_and_a_turn(
    client: Client, serve: Serve, registry: Registry, files: Files
) -> None:
    files.slow = {"two", "three"}
    async with serve(adapters=("one=v1",), max_num_seqs=2):
        for version in (TWO, THREE):
            await register(registry, version)
        await client.end_of(await client.send(version=TWO))  # so that it knows what a load takes
        async with flood(client, ONE, 30) as hot:
            await client.end_of(hot[0])
            start = time.monotonic()
            await client.end_of(hot[-1])
            turn_s = time.monotonic() - start  # of one that comes behind all others
            cold = await client.send(version=THREE, tenant="calm")
            assert await first_token_s(client, cold) < 2 * LOAD_S + turn_s


async def test_a_flood_gives_up_its_memory_for_an_adapter_whose_turn_it_is(
    client: Client, engine: ScriptedEngine, serve: Serve, registry: Registry
) -> None:
    engine.max_adapters = 1
    async with serve(adapters=("one=v1",), max_num_seqs=4):
        await register(registry, TWO)
        async with flood(client, ONE, 20):
            for seed in range(5):
                job = await client.send(version=TWO, tenant="calm", seed=seed)
                assert (await client.end_of(job)).state is JobState.DONE
                assert [type(e) for e in client.events[job.id]].count(Retry) < 8


async def test_one_adapter_more_than_there_is_room_for_and_the_base_are_all_served(
    client: Client, engine: ScriptedEngine, serve: Serve, registry: Registry
) -> None:
    engine.max_adapters = 2
    versions = (ONE, TWO, THREE, BASE.version)
    async with serve(max_num_seqs=4):
        for version in versions[:3]:
            await register(registry, version)
        jobs = [
            await client.send(version=version, seed=seed, max_tokens=20)
            for seed in range(8)
            for version in versions
        ]
        results = [await client.result_of(job) for job in jobs]
        assert len(engine.adapters) <= 2
    for job, result in zip(jobs, results, strict=True):
        expected = expected_ids(job.sampling.seed, 0, 20, job.version)
        assert result.choices[0].ids == tuple(expected)


async def test_an_adapter_that_cannot_be_copied_fails_its_job_and_leaves_no_trace(
    client: Client, engine: ScriptedEngine, serve: Serve, registry: Registry
) -> None:
    async with serve():
        await register(registry, ONE)
        engine.fails_to_write = True
        end = await client.end_of(await client.send(version=ONE))
        assert (engine.adapters, engine.placed) == ([], [])
        engine.fails_to_write = False
        assert (await client.end_of(await client.send(version=ONE))).state is JobState.DONE
    assert end.error is not None
    assert end.error.code is ErrorCode.ADAPTER_UNAVAILABLE
    assert "scripted to fail" in end.error.message


async def test_an_adapter_larger_than_the_memory_fails_its_job_at_once(
    client: Client, engine: ScriptedEngine, serve: Serve, registry: Registry
) -> None:
    engine.max_adapters = 0
    async with serve():
        await register(registry, ONE)
        end = await client.end_of(await client.send(version=ONE))
    assert end.error is not None
    assert end.error.code is ErrorCode.ADAPTER_UNAVAILABLE
    assert "too large" in end.error.message


async def test_an_evicted_version_is_gone_from_every_tier_and_can_come_back(
    client: Client,
    engine: ScriptedEngine,
    serve: Serve,
    registry: Registry,
    host: ScriptedHost,
    files: Files,
) -> None:
    async with serve(adapters=("one=v1",)) as worker:
        await worker.parts.adapters.loader.evict(ONE)
        assert ONE not in host
        assert engine.adapters == []
        await until(lambda: reports_only_the_base(client))
        await worker.parts.adapters.loader.evict(ONE)
        assert (await client.end_of(await client.send(version=ONE))).state is JobState.DONE
    assert files.read == ["one", "one"]


async def test_a_job_that_is_cancelled_while_its_adapter_loads_leaves_it_loaded(
    client: Client, engine: ScriptedEngine, serve: Serve, registry: Registry, files: Files
) -> None:
    files.may_read.clear()
    async with serve():
        await register(registry, ONE)
        job = await client.send(version=ONE)
        await until(lambda: files.read == ["one"])
        await client.queue.cancel(job.id)
        assert (await client.end_of(job)).state is JobState.CANCELLED
        files.may_read.set()
        await until(lambda: engine.adapters == [ONE])
