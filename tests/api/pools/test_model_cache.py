"""Requests for models that a front end remembers, while the registry changes."""

from dataclasses import replace
from typing import Any

import httpx
import pytest
from api_support import ADAPTER, BASE, ScriptedWorker, error_of

from api.pools import model_cache
from api.pools.model_cache import ModelCache
from shared.protocol.ids import AdapterVersion
from shared.store.adapters.registry import Registry
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

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
