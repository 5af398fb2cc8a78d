"""Whole workers with the simulated engine."""

import asyncio
from pathlib import Path

from simulated_workers import check_texts, send, worker_process
from worker_support import Client, has_workers, until

from shared.protocol.ids import AdapterVersion
from shared.protocol.jobs import JobState
from shared.settings import WorkerSettings, load_settings
from shared.store.redis.connection import Redis
from worker.engine_simulated.adapters import source_digest, version_of
from worker.engine_simulated.load_model import load_simulated
from worker.service import Worker

UNNEEDED = (
    *("torch", "transformers", "peft", "safetensors", "tokenizers", "numpy"),
    *("llguidance", "jinja2", "huggingface_hub"),
)
START_DEADLINE_S = 60.0
NUM_WORKERS = 20


def version(name: str, source: str) -> AdapterVersion:
    return version_of(name, source_digest(source))


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
        jobs = [await send(client, max_tokens=30)]
        for adapter in (version("a", "a"), version("b", "x")):
            jobs.append(await client.send(version=adapter, max_tokens=30, ignore_eos=True))
        ends = [await client.end_of(job) for job in jobs]
        assert [end.state for end in ends] == [JobState.DONE] * 3
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
