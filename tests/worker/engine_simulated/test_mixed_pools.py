"""Whole workers with different capabilities in one pool."""

import time
from dataclasses import replace

from simulated_workers import check_texts
from worker_support import Client, has_workers, running_with, until

from shared.protocol.adapters import Adapter
from shared.protocol.capabilities import AdapterKind, Capabilities
from shared.protocol.jobs import Job, JobState
from shared.settings import WorkerSettings, load_settings
from shared.store.adapters.registry import Registry
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from worker.engine_simulated.adapters import source_digest, version_of
from worker.engine_simulated.load_model import load_simulated
from worker.served_model import ServedModel

PLAIN = Capabilities(kinds=frozenset(), features=frozenset(), max_rank=16)


def settings_of(redis_url: str, pool: str) -> WorkerSettings:
    given = {"engine": "simulated", "model": "simulated", "redis_url": redis_url, "pool": pool}
    return load_settings(WorkerSettings, **given, simulated_step_ms=1, max_num_seqs=4)


def plain_of(settings: WorkerSettings) -> ServedModel:
    """Return a simulated model that serves only plain LoRA."""
    return replace(load_simulated(settings), serves=PLAIN)


async def register(redis: Redis, keys: Keys, name: str, *kinds: AdapterKind) -> Adapter:
    digest = source_digest(name)
    adapter = Adapter(
        name=name,
        version=version_of(name, digest),
        digest=digest,
        weights_digest=digest,
        source=name,
        rank=8,
        num_bytes=1,
        created_s=int(time.time()),
        kinds=frozenset(kinds),
    )
    await Registry(redis, keys).add_adapter(adapter)
    return adapter


async def test_each_job_runs_on_a_worker_that_serves_it(
    client: Client, redis: Redis, keys: Keys, redis_url: str, pool: str
) -> None:
    settings = settings_of(redis_url, pool)
    async with running_with(redis, settings, load_simulated(settings)) as full:
        dora = await register(redis, keys, "dora", AdapterKind.DORA)
        plain = await register(redis, keys, "plain")
        async with running_with(redis, settings, plain_of(settings)) as limited:
            await until(lambda: has_workers(client.views, 2))
            jobs: list[Job] = []
            for adapter in (dora, plain) * 20:
                fields = {"max_tokens": 20, "ignore_eos": True}
                jobs.append(await client.send(version=adapter.version, **fields))
            endless = {"max_tokens": 50_000, "n": 4, "ignore_eos": True}
            fills_full = await client.send(version=dora.version, **endless)
            await client.until_published(fills_full, 1)
            on_limited = await client.send(version=plain.version, max_tokens=5, ignore_eos=True)
            assert (await client.end_of(on_limited)).state is JobState.DONE
            await client.queue.cancel(fills_full.id)
            jobs.append(on_limited)
            assert {(await client.end_of(job)).state for job in jobs} == {JobState.DONE}
            assert limited.parts.engine.stats.num_tokens > 0
            assert dora.version not in limited.parts.adapters.residency.held
            assert dora.version in full.parts.adapters.residency.held
    check_texts(client, jobs)
