"""Requests for models that a front end remembers, while the registry changes."""

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest
from api_support import ADAPTER, ScriptedWorker, error_of

from api import model_cache
from api.model_cache import ModelCache
from shared.protocol.ids import AdapterVersion
from shared.store.registry import Found, Registry

BODY = {"model": "extract", "prompt": "a"}
OTHER = replace(ADAPTER, version=AdapterVersion("extract@222222222222"), created_s=9)


class CountingRegistry:
    """Counts how often the real registry is read."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.num_reads = 0

    async def find(self, model: str) -> Found:
        self.num_reads += 1
        return await self._registry.find(model)


@pytest.fixture
def counting(registry: Registry) -> CountingRegistry:
    return CountingRegistry(registry)


@pytest.fixture
def cache(counting: CountingRegistry) -> ModelCache:
    return ModelCache(counting)  # type: ignore[arg-type]


async def answered(http: httpx.AsyncClient, worker: ScriptedWorker) -> tuple[str, dict[str, Any]]:
    """Send a request, and return the version of its job and the answer."""
    request = asyncio.create_task(http.post("/v1/completions", json=BODY))
    job = await worker.take()
    await worker.answer(job)
    return job.job.version, (await request).json()


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


async def test_a_model_is_read_once(cache: ModelCache, counting: CountingRegistry) -> None:
    first = await cache.find("extract")
    assert first.version == ADAPTER.version
    assert await cache.find("extract") is first
    assert counting.num_reads == 1


async def test_a_model_is_read_again_after_a_time(
    cache: ModelCache, counting: CountingRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cache.find("extract")
    monkeypatch.setattr(model_cache, "MAX_AGE_S", 0)
    await cache.find("extract")
    assert counting.num_reads == 2


async def test_unknown_names_are_not_remembered(
    cache: ModelCache, counting: CountingRegistry
) -> None:
    for _ in range(2):
        assert (await cache.find("nothing")).version is None
    assert counting.num_reads == 2


async def test_only_models_of_one_revision_are_remembered(
    cache: ModelCache, counting: CountingRegistry, registry: Registry
) -> None:
    await cache.find("extract")
    await registry.load_adapter(OTHER, replace=True)
    await cache.find("tiny/base")
    assert (await cache.find("extract")).version == OTHER.version
    assert counting.num_reads == 3


async def test_a_limited_number_of_models_is_remembered(
    cache: ModelCache, counting: CountingRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_cache, "MAX_MODELS", 1)
    for _ in range(2):
        await cache.find("extract")
        await cache.find("tiny/base")
    assert counting.num_reads == 4
