"""vLLM's routes that load and unload adapters, with scripted workers."""

import asyncio
from typing import Any

import httpx
import openai
import pytest
from adapter_readers import Reader
from api_support import BASE, error_of

from shared.errors import ErrorCode, JobError
from shared.store.adapters.inspections import Findings, Inspection
from shared.store.adapters.registry import Registry

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
VALIDATE = "/v1/adapters/validate"
SQL = {"lora_name": "sql", "lora_path": "/adapters/sql"}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}


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


async def test_the_error_for_a_malformed_request_names_the_field(
    http: httpx.AsyncClient, reader: Reader
) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
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
        ({**SQL, "lora_int_id": "1"}, "lora_int_id"),
        ({**SQL, "color": "red"}, "color"),
    ]
    for body, param in cases:
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


async def test_unloading_takes_effect_immediately_and_may_be_repeated(
    http: httpx.AsyncClient, registry: Registry
) -> None:
    for _ in range(2):
        reply = await http.post(UNLOAD, json={"lora_name": "extract"})
        assert (reply.status_code, reply.text) == (
            200,
            "Success: LoRA adapter 'extract' removed successfully.",
        )
    reply = await http.post("/v1/chat/completions", json={"model": "extract", **CHAT})
    assert error_of(reply) == (404, "model_not_found", "model")
    reply = await http.post(UNLOAD, json={"lora_name": "sql"})
    assert error_of(reply) == (404, "model_not_found", "lora_name")
    message = reply.json()["error"]["message"]
    assert message.startswith("The lora adapter 'sql' cannot be found.")
    assert error_of(await http.post(UNLOAD, json={}))[2] == "lora_name"
