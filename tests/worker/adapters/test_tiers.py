"""Adapters move between files, host memory and the engine while jobs run or wait for them."""

import os
import sys
import time

import pytest
from scripted_engine import BASE, ScriptedEngine, expected_ids
from scripted_files import LOAD_S
from structlog.testing import capture_logs
from worker_support import Client, flood, until

from shared.errors import ErrorCode
from shared.protocol.events import Retry
from shared.protocol.ids import AdapterVersion
from shared.protocol.jobs import Job, JobState
from shared.store.adapters.residency import ResidencyStore
from worker.adapters.loader_threads import NICENESS

ONE, TWO, THREE = (AdapterVersion(f"{name}@v1") for name in ("one", "two", "three"))


async def holds(client: Client, *versions: AdapterVersion) -> bool:
    """Return whether the pool knows exactly these versions as resident."""
    return await client.residents() == {*versions}


async def test_adapters_of_the_start_and_of_jobs_are_read_and_written_on_threads_of_their_own(
    client: Client,
) -> None:
    async with client.worker(adapters=("one=v1", "two=v1")):
        assert await client.residents() == {ONE, TWO, BASE.version}
        assert [a.name for a in await client.registry.adapters()] == ["one", "two"]
        await client.register(THREE)
        for version in (TWO, THREE):
            result = await client.result_of(await client.send(version=version))
            assert result.choices[0].ids == tuple(expected_ids(1, 0, 5, version))
    assert client.files.read == ["one", "three"], "versions of one folder are read once"
    assert len(client.engine.wrote_on) == 3
    threads = [*client.engine.wrote_on, *(name for name, _ in client.files.threads)]
    assert all(name.startswith("loader") for name in threads)
    if sys.platform == "linux":
        expected = min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
        assert {niceness for _, niceness in client.files.threads} == {expected}


async def test_an_evicted_adapter_is_loaded_again_without_reading_its_files(client: Client) -> None:
    client.engine.max_adapters = 1
    async with client.worker() as worker:
        for version in (ONE, TWO):
            await client.register(version)
        for version in (ONE, TWO, ONE, TWO):
            assert (await client.end_of(await client.send(version=version))).state is JobState.DONE
        totals = worker.parts.adapters.residency.stats.totals
        await until(lambda: holds(client, BASE.version, TWO))
    assert client.files.read == ["one", "two"]
    assert totals["loads"] == 4
    assert totals["evictions"] == 3
    assert totals["reads"] == 2


async def test_a_cold_adapter_under_a_flood_of_a_hot_one_is_served_within_two_loads_and_a_turn(
    client: Client,
) -> None:
    client.files.slow = {"two", "three"}
    async with client.worker(adapters=("one=v1",), max_num_seqs=2):
        for version in (TWO, THREE):
            await client.register(version)
        await client.end_of(await client.send(version=TWO))  # measures the time of a load
        async with flood(client, ONE, 30) as hot:
            await client.end_of(hot[0])
            start = time.monotonic()
            await client.end_of(hot[-1])
            turn_s = time.monotonic() - start  # of a job behind all others
            cold = await client.send(version=THREE, tenant="calm")
            start = time.monotonic()
            await client.until_published(cold, 1)
            assert time.monotonic() - start < 2 * LOAD_S + turn_s


async def test_a_flooded_adapter_is_evicted_for_one_whose_turn_it_is(client: Client) -> None:
    client.engine.max_adapters = 1
    async with client.worker(adapters=("one=v1",), max_num_seqs=4):
        await client.register(TWO)
        async with flood(client, ONE, 20):
            for seed in range(5):
                job = await client.send(version=TWO, tenant="calm", seed=seed)
                assert (await client.end_of(job)).state is JobState.DONE
                assert [type(e) for e in client.events[job.id]].count(Retry) < 8


async def test_one_adapter_more_than_fits_and_the_base_are_all_served(client: Client) -> None:
    client.engine.max_adapters = 2
    versions = (ONE, TWO, THREE, BASE.version)
    async with client.worker(max_num_seqs=4):
        for version in versions[:3]:
            await client.register(version)
        jobs = [
            await client.send(version=version, seed=seed, max_tokens=20)
            for seed in range(8)
            for version in versions
        ]
        results = [await client.result_of(job) for job in jobs]
        assert len(client.engine.adapters) <= 2
    for job, result in zip(jobs, results, strict=True):
        expected = expected_ids(job.sampling.seed, 0, 20, job.version)
        assert result.choices[0].ids == tuple(expected)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [("fails_to_write", True, "scripted to fail"), ("max_adapters", 0, "too large")],
)
async def test_an_adapter_that_cannot_be_copied_fails_its_job_and_leaves_no_trace(
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    field: str,
    value: int,
    reason: str,
) -> None:
    async with client.worker():
        await client.register(ONE)
        with monkeypatch.context() as patch:
            patch.setattr(client.engine, field, value)
            end = await client.end_of(await client.send(version=ONE))
        assert (client.engine.adapters, client.engine.placed) == ([], [])
        assert (await client.end_of(await client.send(version=ONE))).state is JobState.DONE
    assert end.error.code is ErrorCode.ADAPTER_UNAVAILABLE
    assert reason in end.error.message


async def test_an_evicted_version_is_removed_from_every_tier_and_can_be_loaded_again(
    client: Client,
) -> None:
    async with client.worker(adapters=("one=v1",)) as worker:
        assert not await worker.parts.adapters.loader.evict_forgotten(ONE)  # it is registered
        assert client.engine.adapters == [ONE]
        entry = await client.registry.adapter_by_version(ONE)
        assert entry is not None
        await client.registry.unload_adapter("one")
        await until(lambda: holds(client, BASE.version))
        assert ONE not in client.host
        assert client.engine.adapters == []
        await client.registry.load_adapter(entry, replace=True)
        assert (await client.end_of(await client.send(version=ONE))).state is JobState.DONE
    assert client.files.read == ["one", "one"]


async def test_a_job_that_is_cancelled_while_its_adapter_loads_leaves_it_loaded(
    client: Client,
) -> None:
    client.files.may_read.clear()
    async with client.worker():
        await client.register(ONE)
        job = await client.send(version=ONE)
        await until(lambda: client.files.read == ["one"])
        await client.queue.cancel(job.id)
        assert (await client.end_of(job)).state is JobState.CANCELLED
        client.files.may_read.set()
        await until(lambda: client.engine.adapters == [ONE])


async def test_heartbeats_list_what_is_in_host_memory_and_what_runs(client: Client) -> None:
    client.engine.max_adapters = 1
    async with client.worker(adapters=("one=v1", "two=v1"), lease_ms=600):
        client.engine.may_step.clear()
        job = await client.send(version=ONE)

        async def is_listed() -> bool:
            (worker,) = await client.views.workers()
            return dict(worker.info.running_by_version) == {ONE: 1}

        await until(is_listed)
        (worker,) = await client.views.workers()
        assert set(worker.residents) == {BASE.version, ONE}
        assert worker.info.host_adapters == (TWO,)
        client.engine.may_step.set()
        await client.end_of(job)


@pytest.mark.parametrize("source", ["broken", "v2"])
async def test_a_job_fails_if_nobody_can_load_its_adapter(client: Client, source: str) -> None:
    async with client.worker():
        await client.register(ONE, source)
        end = await client.end_of(await client.send(version=ONE))
        assert (await client.end_of(await client.send())).state is JobState.DONE
    assert end.state is JobState.FAILED
    assert end.error.code is ErrorCode.ADAPTER_UNAVAILABLE
    assert source in end.error.message


async def test_a_job_is_left_to_the_worker_that_holds_its_adapter(client: Client) -> None:
    other = ScriptedEngine(step_s=0.002)
    async with client.worker(adapters=("one=v1",), max_num_seqs=1), client.worker(other):
        await client.register(ONE, "broken")
        jobs = [await client.send(version=ONE, max_tokens=200, seed=s) for s in range(3)]
        ends = [await client.end_of(job) for job in jobs]
    assert [end.state for end in ends] == [JobState.DONE] * 3
    assert other.added_ids == []
    assert any(end.try_ > 1 for end in ends), "the other worker should have tried"


async def running_and_waiting(
    client: Client, first: AdapterVersion, second: AdapterVersion
) -> tuple[Job, Job]:
    """Start a long job, and enqueue a second one that waits if only one may run."""
    running = await client.send(version=first, max_tokens=900)
    await client.until_published(running, 1)
    return running, await client.send(version=second)


@pytest.mark.parametrize("has_host_memory", [True, False])
async def test_an_adapter_whose_job_waits_for_a_busy_worker_is_copied_to_host_memory_or_the_device(
    client: Client, has_host_memory: bool
) -> None:
    if not has_host_memory:
        client.host.max_bytes = 0
    async with client.worker(max_num_seqs=1):
        await client.register(ONE)
        running, waiting = await running_and_waiting(client, BASE.version, ONE)
        await until(lambda: ONE in (client.host if has_host_memory else client.engine.adapters))
        assert (await client.views.job(waiting.id)).state is JobState.QUEUED
        assert client.engine.adapters == ([] if has_host_memory else [ONE])

        async def has_ended_its_load() -> bool:
            return not await client.redis.exists(client.keys.loading(ONE))

        async def is_reported() -> bool:
            return await client.residents() == {BASE.version, *client.engine.adapters}

        await until(has_ended_its_load)
        await until(is_reported)
        await client.queue.cancel(running.id)
        result = await client.result_of(waiting)
    assert result.choices[0].ids == tuple(expected_ids(1, 0, 5, ONE))
    assert client.files.read == ["one"]
    assert bool(client.host.num_bytes) is has_host_memory


async def test_an_adapter_that_does_not_fit_yet_is_not_read_ahead(client: Client) -> None:
    client.host.max_bytes, client.engine.max_adapters = 0, 1
    async with client.worker(max_num_seqs=1):
        for version in (ONE, TWO):
            await client.register(version)
        running, waiting = await running_and_waiting(client, ONE, TWO)
        await until(lambda: client.engine.num_room_questions)
        assert client.files.read == ["one"], "an adapter was read that does not fit"
        await client.queue.cancel(running.id)
        assert (await client.end_of(waiting)).state is JobState.DONE


@pytest.mark.parametrize("name", ["broken", "faulty"])
async def test_an_adapter_that_cannot_be_read_ahead_fails_its_job_when_the_job_is_claimed(
    client: Client, name: str
) -> None:
    async with client.worker(max_num_seqs=1):
        version = AdapterVersion(f"{name}@broken")
        await client.register(version)
        running, waiting = await running_and_waiting(client, BASE.version, version)
        await until(lambda: client.files.read == [name])
        assert (await client.views.job(waiting.id)).state is JobState.QUEUED
        await client.queue.cancel(running.id)
        assert (await client.end_of(waiting)).state is JobState.FAILED
        assert (await client.end_of(await client.send())).state is JobState.DONE


async def test_only_one_worker_reads_an_adapter_ahead(client: Client) -> None:
    client.files.may_read.clear()
    other = ScriptedEngine(step_s=0.002)
    async with client.worker(max_num_seqs=1), client.worker(other, max_num_seqs=1):
        await client.register(ONE)
        busy = [await client.send(max_tokens=900) for _ in range(2)]
        for job in busy:
            await client.until_published(job, 1)
        waiting = await client.send(version=ONE)
        await until(lambda: client.files.read == ["one"])
        owner = await client.redis.get(client.keys.loading(ONE))
        second = next(w for w in await client.views.workers() if w.id.encode() != owner)
        assert not await ResidencyStore(client.redis, client.keys).start_load(second.id, ONE)
        client.files.may_read.set()
        for job in busy:
            await client.queue.cancel(job.id)
        assert (await client.end_of(waiting)).state is JobState.DONE


async def test_a_version_that_a_job_has_loaded_meanwhile_is_not_read_again(client: Client) -> None:
    async with client.worker(adapters=("one=v1",)) as worker:
        assert client.files.read == ["one"]
        client.host.drop(ONE)  # as if the copy had been evicted for another one
        with capture_logs() as logs:
            await worker.parts.adapters.loader._prefetch(ONE)
        assert not [entry for entry in logs if entry["event"] == "staging_failed"]
        assert client.files.read == ["one"]
        assert worker.parts.adapters.residency.is_resident(ONE)
