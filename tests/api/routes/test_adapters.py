"""Management of adapters over HTTP, with scripted workers."""

import asyncio
from typing import Any

import httpx
from adapter_readers import Reader
from api_support import ADAPTER, BASE, ScriptedWorker, error_of, running_app
from queue_support import eventually

from shared.errors import ErrorCode, JobError
from shared.settings import ApiSettings
from shared.store.adapters.inspections import Findings
from shared.store.adapters.registry import Registry
from shared.store.views.pool_views import PoolViews

LOAD = "/v1/load_lora_adapter"
VALIDATE = "/v1/adapters/validate"
SQL = {"lora_name": "sql", "lora_path": "/adapters/sql"}
IN_PLACE = {"load_inplace": True}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}


async def test_one_adapter_can_be_read(http: httpx.AsyncClient, registry: Registry) -> None:
    one = (await http.get("/v1/adapters/extract")).json()
    assert one.pop("staging") is None
    assert [one] == (await http.get("/v1/adapters")).json()["data"]
    reply = await http.get("/v1/adapters/org/none")
    assert error_of(reply) == (404, "model_not_found", "model")


async def test_deleting_an_adapter_may_be_repeated(
    http: httpx.AsyncClient, registry: Registry
) -> None:
    for _ in range(2):
        reply = await http.delete("/v1/adapters/extract")
        assert reply.json() == {"id": "extract", "object": "adapter", "deleted": True}
    reply = await http.post("/v1/chat/completions", json={"model": "extract", **CHAT})
    assert error_of(reply) == (404, "model_not_found", "model")
    for unknown in ("org/sql", "a@b", "%00"):
        assert error_of(await http.delete(f"/v1/adapters/{unknown}"))[:2] == (
            404,
            "model_not_found",
        )


async def test_a_rollback_makes_any_kept_version_current(
    http: httpx.AsyncClient, reader: Reader
) -> None:
    for digit in "1234":
        path = f"/adapters/{digit}"
        await http.post(LOAD, json={"lora_name": "org/sql", "lora_path": path, **IN_PLACE})
    first, second, third, fourth = (f"org/sql@{digit * 12}" for digit in "1234")
    url = "/v1/adapters/org/sql/rollback"
    for _ in range(2):  # the second call changes nothing
        body = (await http.post(url, params={"version": second})).json()
        assert body["version"] == second
        assert [each["version"] for each in body["previous"]] == [fourth, third, first]
    reply = await http.post(url, params={"version": "org/sql@555555555555"})
    assert error_of(reply) == (409, "adapter_conflict", "version")
    assert f"{second} (current), {fourth}, {third}, {first}" in reply.text
    for params, code in (({"version": ""}, "invalid_value"), ({"to": first}, "unknown_parameter")):
        assert error_of(await http.post(url, params=params))[:2] == (400, code)
    unknown = await http.post("/v1/adapters/none/rollback", params={"version": "none@1"})
    assert error_of(unknown)[:2] == (404, "model_not_found")
    assert (await http.get("/v1/adapters/org/sql")).json()["version"] == second


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
