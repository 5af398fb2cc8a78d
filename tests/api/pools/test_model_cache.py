"""What a front end remembers of the registry and of the pool's status."""

import asyncio
import itertools
from dataclasses import replace
from typing import Any

import httpx
import pytest
from api_support import ADAPTER, BASE, ScriptedWorker, error_of

from api.pools import model_cache, pool_status
from api.pools.model_cache import ModelCache
from api.pools.pool_status import CachedRead
from shared.protocol.ids import AdapterVersion
from shared.store.adapters.registry import Registry
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews, WorkerView

BODY = {"model": "extract", "prompt": "a"}
OTHER = replace(ADAPTER, version=AdapterVersion("extract@222222222222"), created_s=9)


@pytest.fixture
def cache(registry: Registry) -> ModelCache:
    return ModelCache(registry)


async def answered(http: httpx.AsyncClient, worker: ScriptedWorker) -> tuple[str, dict[str, Any]]:
    """Send a request, and return the version of its job and the answer."""
    reply, job = await worker.serve(http.post("/v1/completions", json=BODY))
    return job.job.version, reply.json()


async def test_a_request_after_a_change_is_served_by_the_new_version(
    http: httpx.AsyncClient, worker: ScriptedWorker, registry: Registry
) -> None:
    assert (await answered(http, worker))[0] == ADAPTER.version
    await registry.load_adapter(OTHER, replace=True)
    version, body = await answered(http, worker)
    assert version == OTHER.version
    assert body["system_fingerprint"].endswith("_222222222222")
    await registry.roll_back_adapter("extract")
    assert (await answered(http, worker))[0] == ADAPTER.version


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"background": True}])
async def test_a_request_after_the_model_was_unloaded_is_a_404(
    http: httpx.AsyncClient, worker: ScriptedWorker, registry: Registry, fields: dict[str, Any]
) -> None:
    await answered(http, worker)
    await registry.unload_adapter("extract")
    reply = await http.post("/v1/completions", json={**BODY, **fields})
    assert error_of(reply) == (404, "model_not_found", "model")


async def test_a_changed_model_may_serve_what_the_remembered_one_could_not(
    http: httpx.AsyncClient, worker: ScriptedWorker, registry: Registry
) -> None:
    await answered(http, worker)
    long = {"model": "extract", "prompt": [[5] * (BASE.max_model_len + 1)]}
    reply = await http.post("/v1/completions", json=long)
    assert error_of(reply)[:2] == (400, "context_length_exceeded")
    await registry.set_base(replace(BASE, max_model_len=2 * BASE.max_model_len))
    reply, _ = await worker.serve(http.post("/v1/completions", json=long))
    assert reply.status_code == 200


async def test_a_model_is_remembered_for_a_time(
    cache: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache.remembered("extract") is None
    found = await cache.read("extract")
    assert found.version == ADAPTER.version
    assert cache.remembered("extract") is found
    monkeypatch.setattr(model_cache, "MAX_AGE_S", 0)
    assert cache.remembered("extract") is None


async def test_names_without_a_model_are_not_remembered(
    cache: ModelCache, redis: Redis, keys: Keys
) -> None:
    assert (await cache.read("nothing")).version is None
    await redis.delete(keys.base)
    assert (await cache.read("extract")).base is None
    assert cache.remembered("nothing") is cache.remembered("extract") is None


async def test_only_models_of_one_revision_are_remembered(
    cache: ModelCache, registry: Registry
) -> None:
    await cache.read("extract")
    await registry.load_adapter(OTHER, replace=True)
    await cache.read("tiny/base")
    assert cache.remembered("extract") is None
    assert cache.remembered("tiny/base")


async def test_a_limited_number_of_models_is_remembered(
    cache: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_cache, "MAX_MODELS", 1)
    await cache.read("extract")
    await cache.read("tiny/base")
    assert cache.remembered("extract") is None
    assert cache.remembered("tiny/base")


async def test_frequent_checks_and_scrapes_share_one_read(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_status, "MAX_AGE_S", 60)
    num_reads = 0
    read = PoolViews.workers

    async def counting_read(views: PoolViews) -> list[WorkerView]:
        nonlocal num_reads
        num_reads += 1
        return await read(views)

    monkeypatch.setattr(PoolViews, "workers", counting_read)
    for path in ("/ready", "/metrics"):
        num_reads = 0
        replies = await asyncio.gather(*(http.get(path) for _ in range(20)))
        assert len({reply.status_code for reply in replies}) == 1
        assert num_reads == 1
    assert (
        'endpoint="/metrics"' in (await http.get("/metrics")).text
    )  # metrics of this process aren't cached


async def test_an_old_value_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = itertools.count(1)

    async def read() -> int:
        return next(numbers)

    value = CachedRead(read)
    assert await value.get() == 1
    monkeypatch.setattr(pool_status, "MAX_AGE_S", 0)
    assert await value.get() == 2


async def test_a_cancelled_caller_does_not_affect_the_others() -> None:
    numbers, is_open = itertools.count(1), asyncio.Event()

    async def read() -> int:
        number = next(numbers)
        await is_open.wait()
        return number

    value = CachedRead(read)
    first, second = (asyncio.create_task(value.get()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait((first,))
    is_open.set()
    assert await second == 2
