"""One front end for several pools: requests reach the pool that has their model or job."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from adapter_readers import Reader, adapter
from api_support import ADAPTER, BASE, ScriptedWorker, error_of
from key_support import bearer, new_key

from api.app import create_app
from shared.errors import SettingsError
from shared.protocol.access.rights import Scope
from shared.protocol.ids import AdapterVersion
from shared.settings import ApiSettings
from shared.store.access.key_store import KeyStore
from shared.store.adapters.inspections import Inspections
from shared.store.adapters.registry import Registry
from shared.store.batches.batches import Batches
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

OTHER_BASE = replace(BASE, name="other/base", version=AdapterVersion("other/base@000000000000"))
ONLY_THERE = replace(ADAPTER, name="chat", version=AdapterVersion("chat@111111111111"))
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}], "background": True}


@pytest.fixture
def further(pool: str) -> str:
    return f"{pool}-2"


@pytest.fixture
def changes(further: str, tmp_path: Path) -> dict[str, Any]:
    return {"further_pools": (further,), "file_store": str(tmp_path / "files")}


@pytest.fixture
def further_keys(further: str) -> Keys:
    return Keys(further)


@pytest.fixture
async def pools(redis: Redis, further_keys: Keys, worker: ScriptedWorker) -> AsyncIterator[Reader]:
    """Two pools with a worker each. The second one has the adapter `extract`, too."""
    registry, queue = Registry(redis, further_keys), Queue(redis, further_keys)
    await registry.set_base(OTHER_BASE)
    for each in (ADAPTER, ONLY_THERE):
        await registry.add_adapter(each)
    there = await ScriptedWorker.start(queue, residents=(OTHER_BASE.version, ONLY_THERE.version))
    yield Reader(there, Inspections(redis, further_keys))
    async for key in redis.scan_iter(f"{further_keys.prefix}*"):
        await redis.delete(key)


async def job_of(http: httpx.AsyncClient, model: str, prefix: str = "", **headers: str) -> str:
    """Return the id of the job of a request."""
    url = f"{prefix}/v1/chat/completions"
    reply = await http.post(url, json={"model": model, **CHAT}, headers=headers)
    assert reply.status_code in (200, 202), reply.text
    return reply.headers["x-lorikeet-job"]


async def has_job(redis: Redis, keys: Keys, job: str) -> bool:
    return bool(await redis.exists(f"{keys.prefix}job:{job}"))


async def test_a_request_reaches_the_pool_of_its_model(
    pools: Reader, http: httpx.AsyncClient, redis: Redis, keys: Keys, further_keys: Keys
) -> None:
    models = [
        (BASE.name, False),
        ("extract", False),
        (OTHER_BASE.name, True),
        ("chat", True),
        ("other/base:extract", True),
        (f"{BASE.name}:extract", False),
        ("chat@111111111111", True),
    ]
    for model, is_further in 2 * models:  # the second time, the pool is remembered
        job = await job_of(http, model)
        assert await has_job(redis, further_keys, job) is is_further
        assert await has_job(redis, keys, job) is not is_further
        found = await http.get(f"/v1/jobs/{job}")
        assert found.json()["id"] == job


async def test_an_answer_comes_from_the_further_pool(
    pools: Reader, http: httpx.AsyncClient
) -> None:
    body = {"model": "other/base", "messages": [{"role": "user", "content": "x"}]}
    reply, _ = await pools.worker.serve(http.post("/v1/chat/completions", json=body), "there")
    answer = reply.json()
    assert answer["choices"][0]["message"]["content"] == "there"
    assert answer["model"] == "other/base"


async def test_all_models_are_listed_and_each_listed_name_is_a_model(
    pools: Reader, http: httpx.AsyncClient
) -> None:
    listed = [card["id"] for card in (await http.get("/v1/models")).json()["data"]]
    assert listed == [BASE.name, "extract", "other/base", "chat", "other/base:extract"]
    for name in listed:
        card = (await http.get(f"/v1/models/{name}")).json()
        assert card["id"] == name
        await job_of(http, name)
    assert (await http.get("/v1/models/other/base:extract")).json()["parent"] == "other/base"
    unknown = await http.post("/v1/chat/completions", json={"model": "none", **CHAT})
    assert error_of(unknown)[:2] == (404, "model_not_found")


async def test_a_path_names_a_pool_with_all_routes(
    pools: Reader,
    http: httpx.AsyncClient,
    redis: Redis,
    keys: Keys,
    pool: str,
    further: str,
    further_keys: Keys,
) -> None:
    prefix = f"/pools/{further}"
    assert await has_job(redis, further_keys, await job_of(http, "extract", prefix))
    assert await has_job(redis, keys, await job_of(http, "extract", f"/pools/{pool}"))
    listed = (await http.get(f"{prefix}/v1/models")).json()["data"]
    assert [card["id"] for card in listed] == ["other/base", "chat", "extract"]
    foreign = await http.post(f"{prefix}/v1/chat/completions", json={"model": BASE.name, **CHAT})
    assert error_of(foreign)[:2] == (404, "model_not_found")
    adapters = (await http.get(f"{prefix}/v1/adapters")).json()["data"]
    assert {each["parent"] for each in adapters} == {"other/base"}
    for path in ("/", "/health", "/ready/worker", "/v1/pool", "/metrics", "/docs"):
        assert (await http.get(f"{prefix}{path}")).status_code == 200, path
    for path in (f"{prefix}/v1/jobs", f"/pools/{pool}/v1/jobs"):
        assert (await http.get(path)).status_code == 200
        rebound = await http.get(path, headers={"Host": "evil.example"})
        assert error_of(rebound)[:2] == (403, "permission_denied")
    page = await http.get(f"{prefix}/", headers={"Accept": "text/html"})
    assert f'"{prefix}/static/' in page.text
    assert (await http.get("/pools/none/v1/models")).status_code == 404


async def test_the_location_of_a_job_leads_to_its_pool(
    pools: Reader, http: httpx.AsyncClient
) -> None:
    reply = await http.post("/v1/chat/completions", json={"model": "chat", **CHAT})
    location = reply.headers["location"]
    assert location.startswith("/pools/")
    assert (await http.get(location)).json()["id"] == reply.headers["x-lorikeet-job"]


async def test_adapters_of_all_pools_are_managed(
    pools: Reader, http: httpx.AsyncClient, redis: Redis, further: str, further_keys: Keys
) -> None:
    listed = (await http.get("/v1/adapters")).json()["data"]
    assert [each["id"] for each in listed] == ["extract", "chat", "extract"]
    reading = asyncio.create_task(pools.run())
    load = {"lora_path": "/adapters/4"}
    body = {**load, "lora_name": "chat", "load_inplace": True}
    assert (await http.post("/v1/load_lora_adapter", json=body)).status_code == 200
    url = f"/pools/{further}/v1/load_lora_adapter"
    assert (await http.post(url, json={**load, "lora_name": "new"})).status_code == 200
    reading.cancel()
    registry = Registry(redis, further_keys)
    for name in ("chat", "new"):
        found = await registry.adapter(name)
        assert found is not None
        assert found.version == adapter(name, "4").version
    shown = (await http.get("/v1/adapters/new")).json()
    assert shown["parent"] == "other/base"
    gone = await http.post("/v1/unload_lora_adapter", json={"lora_name": "new"})
    assert gone.status_code == 200
    assert await registry.adapter("new") is None


async def test_a_conversation_goes_on_with_a_model_of_another_pool(
    pools: Reader, http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    first = await http.post(
        "/v1/responses", json={"model": "extract", "input": "x", "background": True}
    )
    await worker.answer(await worker.take(), "good")
    earlier = first.json()["id"]
    assert (await http.get(f"/v1/responses/{earlier}")).json()["status"] == "completed"
    body = {"model": "chat", "input": "y", "previous_response_id": earlier, "background": True}
    reply = await http.post("/v1/responses", json=body)
    assert reply.status_code == 200, reply.text
    items = (await http.get(f"/v1/responses/{reply.json()['id']}/input_items")).json()["data"]
    assert len(items) == 3


async def test_keys_limits_and_usage_are_those_of_the_first_pool(
    pools: Reader, http: httpx.AsyncClient, store: KeyStore, redis: Redis, further_keys: Keys
) -> None:
    secret, _ = await new_key(store, Scope.INFERENCE, requests_per_day=2)
    job = await job_of(http, "chat", **bearer(secret))
    assert await has_job(redis, further_keys, job)
    await pools.worker.answer(await pools.worker.take())
    await job_of(http, "extract", **bearer(secret))
    limited = await http.post(
        "/v1/chat/completions", json={"model": "chat", **CHAT}, headers=bearer(secret)
    )
    assert error_of(limited)[:2] == (429, "rate_limit_exceeded")
    usage = (await http.get("/v1/usage?group_by=model", headers=bearer(secret))).json()["data"]
    assert [(row["model"], row["requests"]) for row in usage] == [("chat", 1)]
    assert [key async for key in redis.scan_iter(f"{further_keys.prefix}ledger*")] == []


async def test_batches_of_a_further_pool_know_where_keys_and_ledger_are(
    pools: Reader,
    http: httpx.AsyncClient,
    redis: Redis,
    pool: str,
    further: str,
    further_keys: Keys,
) -> None:
    prefix = f"/pools/{further}"
    file = await http.post(
        f"{prefix}/v1/files", files={"file": ("in.jsonl", b"{}")}, data={"purpose": "batch"}
    )
    body = {
        "input_file_id": file.json()["id"],
        "endpoint": "/v1/completions",
        "completion_window": "24h",
    }
    batch = await http.post(f"{prefix}/v1/batches", json=body)
    assert batch.status_code == 200, batch.text
    stored = await Batches(redis, further_keys).get(batch.json()["id"])
    assert stored is not None
    assert stored.books_pool == pool


async def test_a_key_lists_only_the_names_that_it_may_use(
    pools: Reader, http: httpx.AsyncClient, store: KeyStore
) -> None:
    names = ["extract", "chat", "other/base:extract"]
    for models, allowed in ((("extract", "chat"), names), (("other/*",), ["other/base"])):
        secret, _ = await new_key(store, models=models)
        cards = (await http.get("/v1/models", headers=bearer(secret))).json()["data"]
        assert [card["id"] for card in cards] == allowed
        for name in allowed:
            await job_of(http, name, **bearer(secret))


async def test_a_pool_without_workers_hides_no_other(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    assert len((await http.get("/v1/models")).json()["data"]) == 2
    assert len((await http.get("/v1/adapters")).json()["data"]) == 1
    await job_of(http, "extract")


def test_a_pool_is_named_once(settings: ApiSettings) -> None:
    both = settings.model_copy(update={"further_pools": (settings.pool,)})
    with pytest.raises(SettingsError, match=f"{settings.pool} is the pool of --pool already"):
        create_app(both)
