"""Bodies of GET /v1/adapters."""

import httpx
from adapter_readers import adapter
from api_support import ADAPTER, BASE, ScriptedWorker

from shared.store.adapters.registry import Registry
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


async def test_the_list_has_versions_usage_and_workers(
    http: httpx.AsyncClient, worker: ScriptedWorker, redis: Redis, keys: Keys, registry: Registry
) -> None:
    body = {"model": "tiny/base:extract", **CHAT}
    reply, _ = await worker.serve(http.post("/v1/chat/completions", json=body))
    assert reply.json()["model"] == "tiny/base:extract"
    await registry.load_adapter(adapter("extract"), replace=True)
    await redis.set(keys.loading(adapter("extract").version), "w9")

    (body,) = (await http.get("/v1/adapters")).json()["data"]

    (previous,) = body.pop("previous")
    used_ms = previous.pop("last_used_ms")
    assert used_ms > 1.7e12
    assert body == {
        "id": "extract",
        "object": "adapter",
        "parent": BASE.name,
        "version": "extract@333333333333",
        "state": "ready",
        "source": "/adapters/x",
        "kinds": [],
        "rank": 8,
        "bytes": 1024,
        "created": 2,
        "requests": 0,
        "tokens": 0,
        "last_used_ms": None,
        "waiting": 0,
        "workers": [{"worker": "w9", "tier": "loading"}],
        "candidate": None,
        "min_replicas": 0,
    }
    assert previous == {
        "version": ADAPTER.version,
        "state": "ready",
        "source": "/adapters/extract-v1",
        "kinds": [],
        "rank": 8,
        "bytes": 1024,
        "created": 2,
        "requests": 1,
        "tokens": 5,
        "waiting": 0,
        "workers": [{"worker": worker.id, "tier": "device"}],
    }
