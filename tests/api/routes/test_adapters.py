"""Management of adapters over HTTP, with scripted workers."""

import asyncio
from typing import Any

import httpx
import openai
import pytest
from adapter_readers import Reader
from api_support import ADAPTER, BASE, ScriptedWorker, error_of, running_app
from queue_support import eventually

from shared.errors import ErrorCode, JobError
from shared.settings import ApiSettings
from shared.store.inspections import Findings, Inspection
from shared.store.registry import Registry
from shared.store.views.pool_views import PoolViews

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
VALIDATE = "/v1/adapters/validate"
SQL = {"lora_name": "sql", "lora_path": "/adapters/sql"}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}


async def test_a_loaded_adapter_is_listed_immediately(
    http: httpx.AsyncClient, client: openai.AsyncOpenAI, reader: Reader
) -> None:
    reply = await http.post(LOAD, json=SQL)
    assert reply.status_code == 200
    body = reply.json()
    assert (body["id"], body["version"], body["parent"]) == ("sql", "sql@llllllllllll", BASE.name)
    assert (body["state"], body["requests"], body["previous"]) == ("ready", 0, [])
    assert reader.asked == [Inspection(name="sql", source="/adapters/sql")]
    assert [m.id async for m in client.models.list()] == [BASE.name, "extract", "sql"]


async def test_a_name_in_use_is_a_conflict_without_an_inspection(
    http: httpx.AsyncClient, reader: Reader
) -> None:
    for name, code in (("extract", "adapter_exists"), (BASE.name, "adapter_conflict")):
        reply = await http.post(LOAD, json={**SQL, "lora_name": name})
        assert error_of(reply) == (409, code, "lora_name")
        assert reply.headers["x-should-retry"] == "false"
    assert reader.asked == []


async def test_concurrent_loads_of_one_name_load_one_adapter(
    http: httpx.AsyncClient, reader: Reader
) -> None:
    bodies = [{**SQL, "lora_path": f"/adapters/{n}"} for n in range(2)]
    replies = await asyncio.gather(*(http.post(LOAD, json=body) for body in bodies))
    assert sorted(reply.status_code for reply in replies) == [200, 409]


async def test_replacing_an_adapter_keeps_the_previous_version_for_a_rollback(
    http: httpx.AsyncClient, reader: Reader
) -> None:
    for path in ("/adapters/1", "/adapters/2"):
        body = {"lora_name": "sql", "lora_path": path, "load_inplace": True}
        assert (await http.post(LOAD, json=body)).status_code == 200
    body = (await http.post("/v1/adapters/sql/rollback")).json()
    assert body["version"] == "sql@111111111111"
    assert [version["version"] for version in body["previous"]] == ["sql@222222222222"]


async def test_an_adapter_without_a_previous_version_cannot_be_rolled_back(
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
async def test_the_error_for_a_malformed_request_names_the_field(
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
async def test_the_error_of_an_inspection_reaches_the_client(
    http: httpx.AsyncClient, readers: Any, registry: Registry, code: ErrorCode, status: int
) -> None:
    error = JobError(code=code, message="tensor q has shape [2]", param="lora_path")
    await readers(find=lambda _: Findings(error=error))
    for url, body in ((LOAD, SQL), (VALIDATE, {"lora_path": "/adapters/sql"})):
        reply = await http.post(url, json=body)
        assert error_of(reply) == (status, code, "lora_path")
        assert reply.json()["error"]["message"] == "tensor q has shape [2]"
    assert [a.name for a in await registry.adapters()] == ["extract"]


async def test_validating_an_adapter_describes_it_and_loads_nothing(
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


async def test_validating_an_invalid_adapter_reports_the_error(
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


async def test_unloading_takes_effect_immediately_and_may_be_repeated(
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


async def test_running_and_waiting_requests_are_answered_after_their_adapter_is_unloaded(
    http: httpx.AsyncClient, worker: ScriptedWorker, views: PoolViews
) -> None:
    body = {"model": "extract", **CHAT}
    requests = [asyncio.create_task(http.post("/v1/chat/completions", json=body))]
    job = await worker.take()
    requests.append(asyncio.create_task(http.post("/v1/chat/completions", json=body)))
    await eventually(lambda: waiting(views))
    assert (await http.delete("/v1/adapters/extract")).status_code == 200
    listed = (await http.get("/v1/adapters")).json()
    assert listed["data"] == []
    (draining,) = listed["draining"]
    assert (draining["version"], draining["state"]) == (ADAPTER.version, "unloaded")
    await worker.answer(job)
    await worker.answer(await worker.take())
    assert [(await request).status_code for request in requests] == [200, 200]


async def waiting(views: PoolViews) -> int:
    return (await views.counts()).waiting


async def test_without_a_base_model_adapters_cannot_be_managed(settings: ApiSettings) -> None:
    async with running_app(settings) as app, httpx.AsyncClient(base_url=app.url) as http:
        for method, url, body in (
            ("POST", LOAD, SQL),
            ("POST", VALIDATE, {"lora_path": "/x"}),
            ("GET", "/v1/adapters", None),
            ("POST", "/v1/adapters/a/rollback", None),
        ):
            reply = await http.request(method, url, json=body)
            assert error_of(reply)[:2] == (503, "service_unavailable")
