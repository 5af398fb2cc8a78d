"""Management of adapters over HTTP, with scripted workers."""

import asyncio
from typing import Any

import httpx
import openai
import pytest
from adapter_readers import Reader, adapter
from api_support import ADAPTER, BASE, ScriptedWorker, error_of, running_app
from queue_support import eventually
from raw_client import BODY, CHAT, with_settings

from shared.errors import ErrorCode, JobError
from shared.settings import ApiSettings
from shared.store.adapters.inspections import Findings, Inspection
from shared.store.adapters.registry import Registry
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
VALIDATE = "/v1/adapters/validate"
SQL = {"lora_name": "sql", "lora_path": "/adapters/sql"}
REMOVED = "Success: LoRA adapter 'extract' removed successfully."
DELETED = '{"id":"extract","object":"adapter","deleted":true}'
IN_PLACE = {"load_inplace": True}


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
        "base": {
            "name": BASE.name,
            "version": BASE.version,
            "trained_on": "org/base",
            "is_other": False,
        },
    }
    named = await http.post(VALIDATE, json={"lora_path": "/adapters/4", "lora_name": "sql"})
    assert named.json()["version"] == "sql@444444444444"
    assert [a.name for a in await registry.adapters()] == ["extract"]


async def test_validating_an_invalid_adapter_reports_the_error(
    http: httpx.AsyncClient, readers: Any
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
    requests = [asyncio.create_task(http.post(CHAT, json=BODY))]
    job = await worker.take()
    requests.append(asyncio.create_task(http.post(CHAT, json=BODY)))
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


async def test_a_loaded_adapter_is_listed_immediately(
    http: httpx.AsyncClient, client: openai.AsyncOpenAI, reader: Reader
) -> None:
    reply = await http.post(LOAD, json=SQL)
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain")
    assert reply.text == "Success: LoRA adapter 'sql' added successfully."
    body = (await http.get("/v1/adapters/sql")).json()
    assert (body["id"], body["version"], body["parent"]) == ("sql", "sql@llllllllllll", BASE.name)
    assert (body["state"], body["requests"], body["previous"]) == ("ready", 0, [])
    assert reader.asked == [Inspection(name="sql", source="/adapters/sql")]
    assert [m.id async for m in client.models.list()] == [BASE.name, "extract", "sql"]


async def test_a_name_in_use_is_refused_in_vllms_words_without_an_inspection(
    http: httpx.AsyncClient, reader: Reader
) -> None:
    for name, words in (
        (
            "extract",
            "The lora adapter 'extract' has already been loaded. If you want to load the adapter "
            "in place, set 'load_inplace' to True.",
        ),
        (BASE.name, f"The lora adapter name '{BASE.name}' conflicts with a served base model."),
    ):
        reply = await http.post(LOAD, json={**SQL, "lora_name": name})
        assert error_of(reply) == (400, "adapter_exists", "lora_name")
        assert reply.json()["error"]["message"].startswith(words)
    assert reader.asked == []


async def test_vllms_number_of_an_adapter_has_no_effect(
    http: httpx.AsyncClient, reader: Reader
) -> None:
    for number in (7, None):
        body = {**SQL, "lora_int_id": number}
        assert (await http.post(LOAD, json=body)).status_code == 200
        assert (await http.post(UNLOAD, json={**body, "lora_path": None})).status_code == 400
        body.pop("lora_path")
        assert (await http.post(UNLOAD, json=body)).status_code == 200


async def test_concurrent_loads_of_one_name_load_one_adapter(
    http: httpx.AsyncClient, reader: Reader
) -> None:
    bodies = [{**SQL, "lora_path": f"/adapters/{n}"} for n in range(2)]
    replies = await asyncio.gather(*(http.post(LOAD, json=body) for body in bodies))
    assert sorted(reply.status_code for reply in replies) == [200, 400]


BAD_VALUES: dict[str, tuple[Any, ...]] = {
    "lora_name": ("", "../sql", "a/../b", "a@b", "base:a", "a\n", "x" * 129, 7),
    "lora_path": ("", "a\0b", "x" * 4097, None),
    "load_inplace": ("yes",),
    "lora_int_id": ("1",),
    "color": ("red",),
}


async def test_the_error_for_a_malformed_request_names_the_field(
    http: httpx.AsyncClient, reader: Reader
) -> None:
    bad = [
        ({**SQL, field: value}, field) for field, values in BAD_VALUES.items() for value in values
    ]
    for body, param in [({}, "lora_name"), ({"lora_name": "sql"}, "lora_path"), *bad]:
        status, _, named = error_of(await http.post(LOAD, json=body))
        assert (status, named) == (400, param), body
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
    found = "No adapter found for /adapters/sql: " if status == 404 else ""
    for url, body, words in ((LOAD, SQL, found), (VALIDATE, {"lora_path": "/adapters/sql"}, "")):
        reply = await http.post(url, json=body)
        assert error_of(reply) == (status, code, "lora_path")
        assert reply.json()["error"]["message"] == f"{words}tensor q has shape [2]"
    assert [a.name for a in await registry.adapters()] == ["extract"]


@pytest.mark.parametrize(
    ("method", "url", "body", "answer"),
    [
        ("POST", UNLOAD, {"lora_name": "extract"}, REMOVED),
        ("DELETE", "/v1/adapters/extract", None, DELETED),
    ],
)
async def test_removing_an_adapter_takes_effect_immediately_and_may_be_repeated(
    http: httpx.AsyncClient, method: str, url: str, body: Any, answer: str
) -> None:
    for _ in range(2):
        reply = await http.request(method, url, json=body)
        assert (reply.status_code, reply.text) == (200, answer)
    reply = await http.post(CHAT, json=BODY)
    assert error_of(reply) == (404, "model_not_found", "model")


async def test_unknown_adapters_cannot_be_removed(http: httpx.AsyncClient) -> None:
    reply = await http.post(UNLOAD, json={"lora_name": "sql"})
    assert error_of(reply) == (404, "model_not_found", "lora_name")
    message = reply.json()["error"]["message"]
    assert message.startswith("The lora adapter 'sql' cannot be found.")
    assert error_of(await http.post(UNLOAD, json={}))[2] == "lora_name"
    for name in ("org/sql", "a@b", "%00"):
        unknown = await http.delete(f"/v1/adapters/{name}")
        assert error_of(unknown)[:2] == (404, "model_not_found")


ROUTES = [
    ("POST", LOAD, SQL),
    ("POST", UNLOAD, {"lora_name": "extract"}),
    ("POST", VALIDATE, {"lora_path": "/x"}),
    ("GET", "/v1/adapters", None),
    ("POST", "/v1/adapters?name=sql", None),
    ("POST", "/pause?mode=keep", None),
    ("POST", "/resume", None),
    ("POST", "/v1/adapters/extract/rollback", None),
    ("DELETE", "/v1/adapters/extract", None),
]


@with_settings(host="0.0.0.0", allow_anonymous=True)
async def test_without_keys_adapters_cannot_be_managed_from_the_network(
    http: httpx.AsyncClient,
) -> None:
    for method, url, body in ROUTES:
        reply = await http.request(method, url, json=body)
        assert error_of(reply)[:2] == (403, "permission_denied")
    assert (await http.get("/v1/models")).status_code == 200


async def test_pages_of_other_sites_may_not_manage_adapters(http: httpx.AsyncClient) -> None:
    for method, url, body in ROUTES:
        reply = await http.request(method, url, json=body, headers={"Origin": "http://evil.test"})
        assert error_of(reply)[:2] == (403, "permission_denied")
    own = {"Origin": str(http.base_url).rstrip("/")}
    assert (await http.get("/v1/adapters", headers=own)).status_code == 200


ENTRY = {"kinds": [], "other_base": None, "rank": 8, "bytes": 1024, "created": 2}


async def test_the_list_and_each_adapter_have_versions_usage_and_workers(
    http: httpx.AsyncClient, worker: ScriptedWorker, redis: Redis, keys: Keys, registry: Registry
) -> None:
    body = {**BODY, "model": "tiny/base:extract"}
    reply, _ = await worker.serve(http.post(CHAT, json=body))
    assert reply.json()["model"] == "tiny/base:extract"
    await registry.load_adapter(adapter("extract"), replace=True)
    await redis.set(keys.loading(adapter("extract").version), "w9")

    (body,) = (await http.get("/v1/adapters")).json()["data"]
    one = (await http.get("/v1/adapters/extract")).json()
    assert one == {**body, "staging": None}
    (previous,) = body.pop("previous")
    used_ms = previous.pop("last_used_ms")
    assert used_ms > 1.7e12
    assert 0 <= previous.pop("mean_answer_s") < 60
    assert body == {
        "id": "extract",
        "object": "adapter",
        "parent": BASE.name,
        "version": "extract@333333333333",
        "state": "ready",
        "source": "/adapters/x",
        **ENTRY,
        "requests": 0,
        "tokens": 0,
        "failed": 0,
        "mean_answer_s": None,
        "last_used_ms": None,
        "waiting": 0,
        "workers": [{"worker": "w9", "tier": "loading"}],
        "candidate": None,
        "min_replicas": 0,
        "is_paused": False,
    }
    assert previous == {
        "version": ADAPTER.version,
        "state": "ready",
        "source": "/adapters/extract-v1",
        **ENTRY,
        "requests": 1,
        "tokens": 5,
        "failed": 0,
        "waiting": 0,
        "workers": [{"worker": worker.id, "tier": "device"}],
    }
