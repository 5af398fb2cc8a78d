"""Managing adapters over HTTP, with workers that find what they are told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest
from adapter_readers import Reader, adapter, reading
from api_support import ADAPTER, BASE, ScriptedWorker, running_app, until
from pydantic import SecretStr
from queue_support import eventually

from api.adapters import inspection
from shared.errors import ErrorCode, JobError
from shared.settings import ApiSettings
from shared.store.connection import Redis
from shared.store.inspections import Findings, Inspection
from shared.store.keys import Keys
from shared.store.queue import Queue
from shared.store.registry import Registry

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
VALIDATE = "/v1/adapters/validate"
SQL = {"lora_name": "sql", "lora_path": "/adapters/sql"}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def readers(redis: Redis, keys: Keys) -> AsyncIterator[Callable[..., Any]]:
    async with reading(redis, keys) as start:
        yield start


@pytest.fixture
async def reader(readers: Any, registry: Registry) -> Reader:
    one: Reader = await readers()
    return one


def error_of(reply: httpx.Response) -> tuple[int, str, str | None]:
    error = reply.json()["error"]
    return reply.status_code, error["code"], error["param"]


async def test_an_adapter_is_loaded_and_can_be_asked_for_at_once(
    http: httpx.AsyncClient, client: openai.AsyncOpenAI, reader: Reader
) -> None:
    reply = await http.post(LOAD, json=SQL)
    assert reply.status_code == 200
    body = reply.json()
    assert (body["id"], body["version"], body["parent"]) == ("sql", "sql@llllllllllll", BASE.name)
    assert (body["state"], body["requests"], body["previous"]) == ("ready", 0, [])
    assert reader.asked == [Inspection(name="sql", source="/adapters/sql")]
    assert [m.id async for m in client.models.list()] == [BASE.name, "extract", "sql"]


async def test_a_taken_name_is_a_conflict_without_asking_a_worker(
    http: httpx.AsyncClient, reader: Reader
) -> None:
    for name, code in (("extract", "adapter_exists"), (BASE.name, "adapter_conflict")):
        reply = await http.post(LOAD, json={**SQL, "lora_name": name})
        assert error_of(reply) == (409, code, "lora_name")
        assert reply.headers["x-should-retry"] == "false"
    assert reader.asked == []


async def test_two_clients_that_load_one_name_at_a_time_get_one_adapter(
    http: httpx.AsyncClient, reader: Reader
) -> None:
    bodies = [{**SQL, "lora_path": f"/adapters/{n}"} for n in range(2)]
    replies = await asyncio.gather(*(http.post(LOAD, json=body) for body in bodies))
    assert sorted(reply.status_code for reply in replies) == [200, 409]


async def test_replacing_an_adapter_keeps_the_version_before_for_a_rollback(
    http: httpx.AsyncClient, reader: Reader
) -> None:
    for path in ("/adapters/1", "/adapters/2"):
        body = {"lora_name": "sql", "lora_path": path, "load_inplace": True}
        assert (await http.post(LOAD, json=body)).status_code == 200
    body = (await http.post("/v1/adapters/sql/rollback")).json()
    assert body["version"] == "sql@111111111111"
    assert [version["version"] for version in body["previous"]] == ["sql@222222222222"]


async def test_an_adapter_without_a_previous_version_cannot_go_back(
    http: httpx.AsyncClient, registry: Registry
) -> None:
    assert error_of(await http.post("/v1/adapters/extract/rollback"))[:2] == (
        409,
        "adapter_conflict",
    )
    assert error_of(await http.post("/v1/adapters/org/x/rollback"))[:2] == (404, "model_not_found")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "lora_name"),
        ({"lora_name": "sql"}, "lora_path"),
        ({**SQL, "lora_name": ""}, "lora_name"),
        ({**SQL, "lora_name": "../sql"}, "lora_name"),
        ({**SQL, "lora_name": "a/../b"}, "lora_name"),
        ({**SQL, "lora_name": "a@b"}, "lora_name"),
        ({**SQL, "lora_name": "base:a"}, "lora_name"),
        ({**SQL, "lora_name": "a\n"}, "lora_name"),
        ({**SQL, "lora_name": "x" * 129}, "lora_name"),
        ({**SQL, "lora_name": 7}, "lora_name"),
        ({**SQL, "lora_path": ""}, "lora_path"),
        ({**SQL, "lora_path": "a\0b"}, "lora_path"),
        ({**SQL, "lora_path": "x" * 4097}, "lora_path"),
        ({**SQL, "lora_path": None}, "lora_path"),
        ({**SQL, "load_inplace": "yes"}, "load_inplace"),
        ({**SQL, "lora_int_id": 1}, "lora_int_id"),
        ({**SQL, "color": "red"}, "color"),
    ],
)
async def test_a_malformed_request_is_refused_by_field(
    http: httpx.AsyncClient, reader: Reader, body: dict[str, Any], param: str
) -> None:
    status, _, named = error_of(await http.post(LOAD, json=body))
    assert (status, named) == (400, param)
    assert reader.asked == []


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (ErrorCode.ADAPTER_REJECTED, 400),
        (ErrorCode.SOURCE_NOT_ALLOWED, 403),
        (ErrorCode.SOURCE_NOT_FOUND, 404),
        (ErrorCode.UNAVAILABLE, 503),
    ],
)
async def test_what_a_worker_refuses_is_told_with_its_reason(
    http: httpx.AsyncClient, readers: Any, registry: Registry, code: ErrorCode, status: int
) -> None:
    error = JobError(code=code, message="tensor q has shape [2]", param="lora_path")
    await readers(find=lambda _: Findings(error=error))
    for url, body in ((LOAD, SQL), (VALIDATE, {"lora_path": "/adapters/sql"})):
        reply = await http.post(url, json=body)
        assert error_of(reply) == (status, code, "lora_path")
        assert reply.json()["error"]["message"] == "tensor q has shape [2]"
    assert [a.name for a in await registry.adapters()] == ["extract"]


async def test_a_dry_run_tells_what_would_be_loaded_and_loads_nothing(
    http: httpx.AsyncClient, reader: Reader, registry: Registry
) -> None:
    body = (await http.post(VALIDATE, json={"lora_path": "/adapters/4"})).json()
    assert body == {
        "object": "adapter.validation",
        "valid": True,
        "error": None,
        "source": "/adapters/4",
        "version": None,
        "digest": "4" * 64,
        "rank": 8,
        "bytes": 1024,
        "ranks": [{"rank": 8, "modules": 3}],
        "num_tensors": 3,
        "num_unmatched": 0,
        "matched": ["a", "b", "c"],
        "unmatched": [],
        "base": {"name": BASE.name, "version": BASE.version, "trained_on": "org/base"},
    }
    named = await http.post(VALIDATE, json={"lora_path": "/adapters/4", "lora_name": "sql"})
    assert named.json()["version"] == "sql@444444444444"
    assert [a.name for a in await registry.adapters()] == ["extract"]


async def test_a_dry_run_of_files_that_cannot_be_served_tells_what_is_wrong_with_them(
    http: httpx.AsyncClient, readers: Any, registry: Registry
) -> None:
    error = JobError(code=ErrorCode.ADAPTER_REJECTED, message="r=0 isn't served")
    found = Findings(error=error, source="/x", num_tensors=1, num_unmatched=1, unmatched=("t",))
    await readers(find=lambda _: found)
    reply = await http.post(VALIDATE, json={"lora_path": "/x"})
    body = reply.json()
    assert (reply.status_code, body["valid"], body["unmatched"]) == (200, False, ["t"])
    assert body["error"]["message"] == "r=0 isn't served"
    assert body["digest"] is None


async def test_unloading_takes_effect_at_once_and_may_be_repeated(
    http: httpx.AsyncClient, registry: Registry
) -> None:
    for _ in range(2):
        reply = await http.post(UNLOAD, json={"lora_name": "extract"})
        assert reply.json() == {"id": "extract", "object": "adapter", "deleted": True}
    reply = await http.post("/v1/chat/completions", json={"model": "extract", **CHAT})
    assert error_of(reply) == (404, "model_not_found", "model")
    assert (await http.delete("/v1/adapters/extract")).status_code == 200
    for unknown in ("org/sql", "a@b", "%00"):
        assert error_of(await http.delete(f"/v1/adapters/{unknown}"))[:2] == (
            404,
            "model_not_found",
        )
    assert error_of(await http.post(UNLOAD, json={"lora_name": "sql"}))[0] == 404
    assert error_of(await http.post(UNLOAD, json={}))[2] == "lora_name"


async def test_requests_that_run_or_wait_when_their_adapter_is_unloaded_are_answered(
    http: httpx.AsyncClient, worker: ScriptedWorker, queue: Queue
) -> None:
    body = {"model": "extract", **CHAT}
    requests = [asyncio.create_task(http.post("/v1/chat/completions", json=body))]
    job = await worker.take()
    requests.append(asyncio.create_task(http.post("/v1/chat/completions", json=body)))
    await eventually(lambda: waiting(queue))
    assert (await http.delete("/v1/adapters/extract")).status_code == 200
    listed = (await http.get("/v1/adapters")).json()
    assert listed["data"] == []
    (draining,) = listed["draining"]
    assert (draining["version"], draining["state"]) == (ADAPTER.version, "unloaded")
    await worker.answer(job)
    await worker.answer(await worker.take())
    assert [(await request).status_code for request in requests] == [200, 200]


async def waiting(queue: Queue) -> int:
    return (await queue.counts()).waiting


async def test_the_list_tells_versions_uses_and_where_they_are(
    http: httpx.AsyncClient, worker: ScriptedWorker, redis: Redis, keys: Keys, registry: Registry
) -> None:
    request = asyncio.create_task(
        http.post("/v1/chat/completions", json={"model": "tiny/base:extract", **CHAT})
    )
    await worker.answer(await worker.take())
    assert (await request).json()["model"] == "tiny/base:extract"
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
        "rank": 8,
        "bytes": 1024,
        "created": 2,
        "requests": 0,
        "tokens": 0,
        "last_used_ms": None,
        "waiting": 0,
        "workers": [{"worker": "w9", "tier": "loading"}],
    }
    assert previous == {
        "version": ADAPTER.version,
        "state": "ready",
        "source": "/adapters/extract-v1",
        "rank": 8,
        "bytes": 1024,
        "created": 2,
        "requests": 1,
        "tokens": 5,
        "waiting": 0,
        "workers": [{"worker": worker.id, "tier": "device"}],
    }


@pytest.mark.parametrize("model", ["extract", "tiny/base:extract", ADAPTER.version])
async def test_a_request_names_an_adapter_in_three_ways(
    http: httpx.AsyncClient, worker: ScriptedWorker, model: str
) -> None:
    request = asyncio.create_task(
        http.post("/v1/completions", json={"model": model, "prompt": "a"})
    )
    job = await worker.take()
    assert (job.job.version, job.job.model) == (ADAPTER.version, model)
    await worker.answer(job)
    body = (await request).json()
    assert body["model"] == model
    assert body["system_fingerprint"] == "fp_000000000000_111111111111"


@pytest.mark.parametrize(
    "model", ["other:extract", "extract@222222222222", "extract@", ":extract", "tiny/base:", "@"]
)
async def test_other_ways_to_name_an_adapter_are_unknown(
    http: httpx.AsyncClient, registry: Registry, model: str
) -> None:
    reply = await http.post("/v1/completions", json={"model": model, "prompt": "a"})
    assert error_of(reply) == (404, "model_not_found", "model")


async def test_without_a_worker_nothing_can_be_loaded(
    http: httpx.AsyncClient, registry: Registry
) -> None:
    reply = await http.post(LOAD, json=SQL)
    assert error_of(reply)[:2] == (503, "service_unavailable")
    assert "no worker is alive" in reply.json()["error"]["message"]


async def test_without_a_base_model_nothing_can_be_managed(settings: ApiSettings) -> None:
    async with running_app(settings) as app, httpx.AsyncClient(base_url=app.url) as http:
        for method, url, body in (
            ("POST", LOAD, SQL),
            ("POST", VALIDATE, {"lora_path": "/x"}),
            ("GET", "/v1/adapters", None),
            ("POST", "/v1/adapters/a/rollback", None),
        ):
            reply = await http.request(method, url, json=body)
            assert error_of(reply)[:2] == (503, "service_unavailable")


async def test_another_worker_is_asked_when_one_dies_reading(
    http: httpx.AsyncClient, readers: Any, registry: Registry
) -> None:
    dying = await readers(dies=True)
    request = asyncio.create_task(http.post(LOAD, json=SQL))
    await until(lambda: bool(dying.asked))
    await readers()
    assert (await request).status_code == 200


async def test_what_kills_two_workers_is_not_given_to_a_third(
    http: httpx.AsyncClient, readers: Any, registry: Registry
) -> None:
    workers = [await readers(dies=True) for _ in range(3)]
    reply = await http.post(LOAD, json=SQL)
    assert error_of(reply)[:2] == (503, "service_unavailable")
    assert "2 workers died" in reply.json()["error"]["message"]
    assert sum(len(worker.asked) for worker in workers) == 2


async def test_another_worker_is_asked_when_one_does_not_read_its_mail(
    http: httpx.AsyncClient,
    readers: Any,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inspection, "TAKE_S", 0.1)
    monkeypatch.setattr(inspection, "POLL_S", 0.1)
    await readers(is_deaf=True)
    reply = await http.post(LOAD, json=SQL)
    assert error_of(reply)[0] == 503
    hearing = await readers()
    assert (await http.post(LOAD, json=SQL)).status_code == 200
    assert len(hearing.asked) == 1


async def test_reading_that_takes_too_long_is_a_504(
    settings: ApiSettings, readers: Any, registry: Registry
) -> None:
    reader = await readers()

    async def never(inspection_id: Any) -> None:
        assert await reader.inspections.take(inspection_id)

    reader.answer = never
    hasty = settings.model_copy(update={"deadline_s": 0.5})
    async with running_app(hasty) as app, httpx.AsyncClient(base_url=app.url) as http:
        reply = await http.post(LOAD, json=SQL)
    assert error_of(reply)[:2] == (504, "deadline_exceeded")


ADMIN, RED = "admin-" + "a" * 20, "red-" + "r" * 20
ROUTES = [
    ("POST", LOAD, SQL),
    ("POST", UNLOAD, {"lora_name": "extract"}),
    ("POST", VALIDATE, {"lora_path": "/x"}),
    ("GET", "/v1/adapters", None),
    ("POST", "/v1/adapters/extract/rollback", None),
    ("DELETE", "/v1/adapters/extract", None),
]


@asynccontextmanager
async def http_of(settings: ApiSettings, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        running_app(settings.model_copy(update=changes)) as app,
        httpx.AsyncClient(base_url=app.url) as http,
    ):
        yield http


async def test_with_keys_only_the_tenant_admin_manages_adapters(
    settings: ApiSettings, registry: Registry
) -> None:
    keys = tuple(SecretStr(word) for word in (f"admin:{ADMIN}", f"red:{RED}"))
    async with http_of(settings, api_keys=keys) as http:
        for method, url, body in ROUTES:
            assert (await http.request(method, url, json=body)).status_code == 401
            red = {"Authorization": f"Bearer {RED}"}
            reply = await http.request(method, url, json=body, headers=red)
            assert error_of(reply)[:2] == (403, "permission_denied")
        admin = {"Authorization": f"Bearer {ADMIN}"}
        assert (await http.get("/v1/adapters", headers=admin)).status_code == 200
        assert (await http.delete("/v1/adapters/extract", headers=admin)).status_code == 200


async def test_without_keys_the_network_manages_nothing(
    settings: ApiSettings, registry: Registry
) -> None:
    async with http_of(settings, host="0.0.0.0", allow_anonymous=True) as http:
        for method, url, body in ROUTES:
            reply = await http.request(method, url, json=body)
            assert error_of(reply)[:2] == (403, "permission_denied")
        assert (await http.get("/v1/models")).status_code == 200


async def test_a_page_of_another_site_manages_nothing(
    http: httpx.AsyncClient, registry: Registry
) -> None:
    for method, url, body in ROUTES:
        reply = await http.request(method, url, json=body, headers={"Origin": "http://evil.test"})
        assert error_of(reply)[:2] == (403, "permission_denied")
    own = {"Origin": str(http.base_url).rstrip("/")}
    assert (await http.get("/v1/adapters", headers=own)).status_code == 200
