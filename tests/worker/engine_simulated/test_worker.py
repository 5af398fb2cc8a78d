"""Whole workers with the simulated engine, also of different capabilities in one pool."""

import asyncio
from dataclasses import replace
from pathlib import Path

from simulated_workers import BASE, check_texts, send, worker_process
from worker_support import Client, has_workers, running_with, until

from shared.protocol.adapters import Adapter
from shared.protocol.capabilities import AdapterKind, Capabilities
from shared.protocol.jobs import JobState
from shared.protocol.workers import WorkerMode
from shared.settings import WorkerSettings, load_settings
from shared.store.jobs.worker_modes import ModeOutcome, WorkerModes
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from worker.engine_simulated.adapters import SimulatedSource, source_digest, version_of
from worker.engine_simulated.load_model import load_simulated
from worker.service import Worker

UNNEEDED = (
    *("torch", "transformers", "peft", "safetensors", "tokenizers", "numpy"),
    *("llguidance", "jinja2", "huggingface_hub"),
)
START_DEADLINE_S = 60.0
NUM_WORKERS = 20


def settings_of(redis_url: str, pool: str, **settings: object) -> WorkerSettings:
    given = {"engine": "simulated", "model": "simulated", "redis_url": redis_url, "pool": pool}
    return load_settings(WorkerSettings, **given, **settings)


async def test_a_worker_needs_no_package_of_the_extra_worker(
    client: Client, redis_url: str, pool: str, tmp_path: Path
) -> None:
    for name in UNNEEDED:
        (tmp_path / f"{name}.py").write_text("raise ImportError('not installed')")
    env = {"PYTHONPATH": str(tmp_path)}
    with worker_process(redis_url, pool, env=env, adapters=["a", "b=x"], simulated_step_ms=1):
        await until(lambda: has_workers(client.views, 1), START_DEADLINE_S)
        adapters = [version_of(name, source_digest(source)) for name, source in ("aa", "bx")]
        jobs = [await send(client, version=each, max_tokens=30) for each in (BASE, *adapters)]
        ends = [await client.end_of(job) for job in jobs]
        assert [end.state for end in ends] == [JobState.DONE] * 3
    check_texts(client, jobs)


async def test_a_draining_worker_hands_its_jobs_over_and_takes_others_once_it_is_resumed(
    client: Client, redis: Redis, redis_url: str, pool: str
) -> None:
    quick = {"lease_ms": 600, "drain_s": 0.1, "simulated_step_ms": 10}
    settings = settings_of(redis_url, pool, **quick)
    first, second = (Worker(settings, redis, load_simulated(settings)) for _ in range(2))
    modes = WorkerModes(redis, Keys(pool))

    async def set_mode(worker: Worker, mode: WorkerMode) -> None:
        assert await modes.set(worker.parts.lease.wid, mode, by="red") is ModeOutcome.OK

    async with asyncio.TaskGroup() as group:
        group.create_task(first.run())
        await until(lambda: has_workers(client.views, 1))
        jobs = [await send(client, max_tokens=300, seed=seed) for seed in range(3)]
        for job in jobs:
            await client.until_published(job, 10)
        group.create_task(second.run())
        await until(lambda: has_workers(client.views, 2))
        await set_mode(first, WorkerMode.DRAINING)
        for job in jobs:
            assert (await client.end_of(job)).try_ == 2
            view = await client.views.job(job.id)
            assert view is not None
            events = [(m.event.value, m.worker, m.reason) for m in view.timeline.moments]
            wids = first.parts.lease.wid, second.parts.lease.wid
            of_each = [("claimed", None), ("loaded", None), ("first_token", None)]
            assert [event[::2] for event in events] == [
                *(("accepted", None), ("queued", None), *of_each),
                *(("requeued", "released"), *of_each, ("completed", None)),
            ]
            assert [worker for _, worker, _ in events] == [
                *(None, None),
                *4 * wids[:1],
                *4 * wids[1:],
            ]
        await set_mode(second, WorkerMode.PAUSED)
        await set_mode(first, WorkerMode.SERVING)
        job = await send(client, max_tokens=3)
        assert (await client.end_of(job)).state is JobState.DONE
        assert len(await client.views.workers()) == 2
        for worker in (first, second):
            worker.stop()
    check_texts(client, jobs)


async def test_many_workers_run_in_one_event_loop(
    client: Client, redis: Redis, redis_url: str, pool: str
) -> None:
    settings = settings_of(redis_url, pool, simulated_step_ms=5, max_num_seqs=2)
    workers = [Worker(settings, redis, load_simulated(settings)) for _ in range(NUM_WORKERS)]
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.run())
        await until(lambda: has_workers(client.views, NUM_WORKERS))
        jobs = [await send(client, max_tokens=100, seed=seed) for seed in range(2 * NUM_WORKERS)]
        for job in jobs:
            await client.end_of(job)
        for worker in workers:
            worker.stop()
    assert sum(worker.parts.engine.stats.num_tokens > 0 for worker in workers) > NUM_WORKERS / 2
    check_texts(client, jobs)


PLAIN = Capabilities(kinds=frozenset(), features=frozenset(), max_rank=16)


async def register(client: Client, name: str, *kinds: AdapterKind) -> Adapter:
    entry = SimulatedSource(load_s=0).read(name, name).weights.registry_entry(name)
    adapter = replace(entry, kinds=frozenset(kinds))
    await client.registry.add_adapter(adapter)
    return adapter


async def test_each_job_runs_on_a_worker_that_serves_it(
    client: Client, redis: Redis, redis_url: str, pool: str
) -> None:
    settings = settings_of(redis_url, pool, simulated_step_ms=1, max_num_seqs=4)
    only_plain = replace(load_simulated(settings), serves=PLAIN)
    async with running_with(redis, settings, load_simulated(settings)) as full:
        dora = await register(client, "dora", AdapterKind.DORA)
        plain = await register(client, "plain")
        async with running_with(redis, settings, only_plain) as limited:
            jobs = [
                await send(client, version=adapter.version, max_tokens=20)
                for adapter in (dora, plain) * 20
            ]
            fills_full = await send(client, version=dora.version, max_tokens=50_000, n=4)
            await client.until_published(fills_full, 1)
            jobs.append(await send(client, version=plain.version, max_tokens=5))
            assert (await client.end_of(jobs[-1])).state is JobState.DONE
            await client.queue.cancel(fills_full.id)
            assert {(await client.end_of(job)).state for job in jobs} == {JobState.DONE}
            assert limited.parts.engine.stats.num_tokens > 0
            assert dora.version not in limited.parts.adapters.residency.held
            assert dora.version in full.parts.adapters.residency.held
    check_texts(client, jobs)
