"""Adapters of waiting jobs are read ahead while the worker is busy."""

import pytest
from scripted_engine import BASE, ScriptedEngine, expected_ids, scripted_model
from scripted_tiers import Files, Serve, Tiers
from structlog.testing import capture_logs
from worker_support import Client, register, residents, running_with, until

from shared.protocol.ids import AdapterVersion
from shared.protocol.jobs import Job, JobState
from shared.settings import WorkerSettings
from shared.store.adapters.registry import Registry
from shared.store.adapters.residency import ResidencyStore
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

ONE, TWO = AdapterVersion("one@v1"), AdapterVersion("two@v1")


async def running_and_waiting(
    client: Client, first: AdapterVersion, second: AdapterVersion
) -> tuple[Job, Job]:
    """Start a long job, and enqueue a second one that waits if only one may run."""
    running = await client.send(version=first, max_tokens=900)
    await client.until_published(running, 1)
    return running, await client.send(version=second)


async def test_an_adapter_whose_job_waits_for_a_busy_worker_is_copied_to_host_memory(
    client: Client,
    engine: ScriptedEngine,
    serve: Serve,
    registry: Registry,
    tiers: Tiers,
    keys: Keys,
    redis: Redis,
) -> None:
    async with serve(max_num_seqs=1):
        await register(registry, ONE)
        running, waiting = await running_and_waiting(client, BASE.version, ONE)
        await until(lambda: ONE in tiers.host)
        assert (await client.views.job(waiting.id)).state is JobState.QUEUED
        assert engine.adapters == []

        async def has_ended_its_load() -> bool:
            return not await redis.exists(keys.loading(ONE))

        await until(has_ended_its_load)
        await client.queue.cancel(running.id)
        result = await client.result_of(waiting)
    assert result.choices[0].ids == tuple(expected_ids(1, 0, 5, ONE))
    assert tiers.files.read == ["one"]


async def test_without_host_memory_an_adapter_is_read_ahead_to_the_device(
    client: Client, engine: ScriptedEngine, serve: Serve, registry: Registry, tiers: Tiers
) -> None:
    tiers.host.max_bytes = 0
    async with serve(max_num_seqs=1):
        await register(registry, ONE)
        running, waiting = await running_and_waiting(client, BASE.version, ONE)
        await until(lambda: ONE in engine.adapters)
        assert (await client.views.job(waiting.id)).state is JobState.QUEUED

        async def is_reported() -> bool:
            return await residents(client.views) == {BASE.version, ONE}

        await until(is_reported)
        await client.queue.cancel(running.id)
        result = await client.result_of(waiting)
    assert result.choices[0].ids == tuple(expected_ids(1, 0, 5, ONE))
    assert tiers.files.read == ["one"]
    assert tiers.host.num_bytes == 0


async def test_an_adapter_that_does_not_fit_yet_is_not_read_ahead(
    client: Client, engine: ScriptedEngine, serve: Serve, registry: Registry, tiers: Tiers
) -> None:
    tiers.host.max_bytes, engine.max_adapters = 0, 1
    async with serve(max_num_seqs=1):
        for version in (ONE, TWO):
            await register(registry, version)
        running, waiting = await running_and_waiting(client, ONE, TWO)
        await until(lambda: engine.num_room_questions)
        assert tiers.files.read == ["one"], "an adapter was read that does not fit"
        await client.queue.cancel(running.id)
        assert (await client.end_of(waiting)).state is JobState.DONE


@pytest.mark.parametrize("name", ["broken", "faulty"])
async def test_an_adapter_that_cannot_be_read_ahead_fails_its_job_when_the_job_is_claimed(
    client: Client, serve: Serve, registry: Registry, files: Files, name: str
) -> None:
    async with serve(max_num_seqs=1):
        version = AdapterVersion(f"{name}@broken")
        await register(registry, version)
        running, waiting = await running_and_waiting(client, BASE.version, version)
        await until(lambda: files.read == [name])
        assert (await client.views.job(waiting.id)).state is JobState.QUEUED
        await client.queue.cancel(running.id)
        assert (await client.end_of(waiting)).state is JobState.FAILED
        assert (await client.end_of(await client.send())).state is JobState.DONE


async def test_only_one_worker_reads_an_adapter_ahead(
    client: Client,
    serve: Serve,
    registry: Registry,
    files: Files,
    keys: Keys,
    redis: Redis,
    pool: str,
) -> None:
    files.may_read.clear()
    other = WorkerSettings(model="scripted", pool=pool)
    served = scripted_model(ScriptedEngine(step_s=0.002), files, max_num_seqs=1)
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


async def test_a_version_that_a_job_has_loaded_meanwhile_is_not_read_again(
    serve: Serve, tiers: Tiers
) -> None:
    async with serve(adapters=("one=v1",)) as worker:
        assert tiers.files.read == ["one"]
        tiers.host.drop(ONE)  # as if the copy had been evicted for another one
        with capture_logs() as logs:
            await worker.parts.adapters.loader._prefetch(ONE)
        assert not [entry for entry in logs if entry["event"] == "staging_failed"]
        assert tiers.files.read == ["one"]
        assert worker.parts.adapters.residency.is_resident(ONE)
