"""Adapters move between files, host memory and the engine while jobs run."""

import os
import sys
import time

import pytest
from scripted_engine import BASE, ScriptedEngine, expected_ids
from scripted_tiers import LOAD_S, Files, Serve, Tiers
from worker_support import Client, flood, register, residents, until

from shared.errors import ErrorCode
from shared.protocol.events import Retry
from shared.protocol.ids import AdapterVersion
from shared.protocol.jobs import Job, JobState
from shared.store.adapters.registry import Registry
from worker.adapters.loader_threads import NICENESS

ONE, TWO, THREE = (AdapterVersion(f"{name}@v1") for name in ("one", "two", "three"))


async def first_token_s(client: Client, job: Job) -> float:
    """Return the seconds until the job's first token is published."""
    start = time.monotonic()
    await client.until_published(job, 1)
    return time.monotonic() - start


async def reports_only_the_base(client: Client) -> bool:
    return await residents(client.views) == {BASE.version}


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


async def test_an_evicted_adapter_is_loaded_again_without_reading_its_files(
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


async def test_adapters_that_do_not_fit_on_the_device_at_the_start_wait_in_host_memory(
    client: Client, engine: ScriptedEngine, serve: Serve, files: Files
) -> None:
    engine.max_adapters = 1
    async with serve(adapters=("one=v1", "two=v1", "three=v1")):
        assert await residents(client.views) == {BASE.version, ONE}
        assert (await client.end_of(await client.send(version=THREE))).state is JobState.DONE
    assert files.read == ["one"], "versions of one folder are read once"


async def test_a_cold_adapter_under_a_flood_of_a_hot_one_is_served_within_two_loads_and_a_turn(
    client: Client, serve: Serve, registry: Registry, files: Files
) -> None:
    files.slow = {"two", "three"}
    async with serve(adapters=("one=v1",), max_num_seqs=2):
        for version in (TWO, THREE):
            await register(registry, version)
        await client.end_of(await client.send(version=TWO))  # measures the time of a load
        async with flood(client, ONE, 30) as hot:
            await client.end_of(hot[0])
            start = time.monotonic()
            await client.end_of(hot[-1])
            turn_s = time.monotonic() - start  # of a job behind all others
            cold = await client.send(version=THREE, tenant="calm")
            assert await first_token_s(client, cold) < 2 * LOAD_S + turn_s


async def test_a_flooded_adapter_is_evicted_for_one_whose_turn_it_is(
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


async def test_one_adapter_more_than_fits_and_the_base_are_all_served(
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


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [("fails_to_write", True, "scripted to fail"), ("max_adapters", 0, "too large")],
)
async def test_an_adapter_that_cannot_be_copied_fails_its_job_and_leaves_no_trace(
    client: Client,
    engine: ScriptedEngine,
    serve: Serve,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    field: str,
    value: int,
    reason: str,
) -> None:
    async with serve():
        await register(registry, ONE)
        with monkeypatch.context() as patch:
            patch.setattr(engine, field, value)
            end = await client.end_of(await client.send(version=ONE))
        assert (engine.adapters, engine.placed) == ([], [])
        assert (await client.end_of(await client.send(version=ONE))).state is JobState.DONE
    assert end.error.code is ErrorCode.ADAPTER_UNAVAILABLE
    assert reason in end.error.message


async def test_an_evicted_version_is_removed_from_every_tier_and_can_be_loaded_again(
    client: Client, engine: ScriptedEngine, serve: Serve, registry: Registry, tiers: Tiers
) -> None:
    async with serve(adapters=("one=v1",)) as worker:
        assert not await worker.parts.adapters.loader.evict_forgotten(ONE)  # it is registered
        assert engine.adapters == [ONE]
        entry = await registry.adapter_by_version(ONE)
        assert entry is not None
        await registry.unload_adapter("one")
        await until(lambda: reports_only_the_base(client))
        assert ONE not in tiers.host
        assert engine.adapters == []
        await registry.load_adapter(entry, replace=True)
        assert (await client.end_of(await client.send(version=ONE))).state is JobState.DONE
    assert tiers.files.read == ["one", "one"]


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


async def test_heartbeats_list_what_is_in_host_memory_and_what_runs(
    client: Client, engine: ScriptedEngine, serve: Serve
) -> None:
    engine.max_adapters = 1
    async with serve(adapters=("one=v1", "two=v1"), lease_ms=600):
        engine.may_step.clear()
        job = await client.send(version=ONE)

        async def is_listed() -> bool:
            (worker,) = await client.views.workers()
            return dict(worker.info.running_by_version) == {ONE: 1}

        await until(is_listed)
        (worker,) = await client.views.workers()
        assert set(worker.residents) == {BASE.version, ONE}
        assert worker.info.host_adapters == (TWO,)
        engine.may_step.set()
        await client.end_of(job)
