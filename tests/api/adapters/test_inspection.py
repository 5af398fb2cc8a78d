"""Inspections by workers that answer, are silent, die, or can't serve the adapter."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from adapter_readers import finds
from api_support import BASE, ScriptedWorker, error_of, until
from raw_client import with_settings

from api.adapters import inspection
from shared.errors import ErrorCode, JobError
from shared.protocol.capabilities import AdapterKind, Capabilities
from shared.store.adapters.inspections import Findings, Inspection
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue

LOAD, VALIDATE, UPLOAD = "/v1/load_lora_adapter", "/v1/adapters/validate", "/v1/adapters"
SQL = {"lora_name": "sql", "lora_path": "/adapters/sql"}


async def test_without_a_worker_an_adapter_is_loaded_once_a_worker_starts(
    http: httpx.AsyncClient, readers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "POLL_S", 0.1)
    asked = asyncio.create_task(http.post(LOAD, json=SQL))
    _, waiting = await asyncio.wait([asked], timeout=1)
    assert waiting
    await readers()
    assert (await asked).status_code == 200


@with_settings(deadline_s=0.5)
async def test_without_a_worker_within_the_deadline_an_adapter_cannot_be_loaded(
    http: httpx.AsyncClient,
) -> None:
    reply = await http.post(LOAD, json=SQL)
    assert error_of(reply)[:2] == (504, "deadline_exceeded")
    assert "no worker has read '/adapters/sql'" in reply.json()["error"]["message"]


async def test_another_worker_is_asked_if_one_dies_during_the_inspection(
    http: httpx.AsyncClient, readers: Any
) -> None:
    dying = await readers(dies=True)
    request = asyncio.create_task(http.post(LOAD, json=SQL))
    await until(lambda: bool(dying.asked))
    await readers()
    assert (await request).status_code == 200


async def test_a_worker_that_starts_after_two_died_of_an_inspection_is_not_asked(
    http: httpx.AsyncClient, readers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "POLL_S", 0.1)
    asked = asyncio.create_task(http.post(LOAD, json=SQL))
    for _ in range(2):
        dying = await readers(dies=True)
        await until(lambda dying=dying: bool(dying.asked))
    reply = await asked
    assert error_of(reply)[:2] == (503, "service_unavailable")
    assert "2 workers died" in reply.json()["error"]["message"]


async def test_an_inspection_that_killed_two_workers_is_not_sent_to_a_third(
    http: httpx.AsyncClient, readers: Any
) -> None:
    workers = [await readers(dies=True) for _ in range(3)]
    reply = await http.post(LOAD, json=SQL)
    assert error_of(reply)[:2] == (503, "service_unavailable")
    assert "2 workers died" in reply.json()["error"]["message"]
    assert sum(len(worker.asked) for worker in workers) == 2


async def test_another_worker_is_asked_if_one_does_not_take_the_inspection(
    http: httpx.AsyncClient, readers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "TAKE_S", 0.1)
    monkeypatch.setattr(inspection, "POLL_S", 0.1)
    await readers(ignores_inspections=True)
    asked = asyncio.create_task(http.post(LOAD, json=SQL))
    _, waiting = await asyncio.wait([asked], timeout=1)
    assert waiting
    healthy = await readers()
    assert (await asked).status_code == 200
    assert len(healthy.asked) == 1


@with_settings(deadline_s=0.5)
async def test_an_inspection_over_the_deadline_is_a_504(
    http: httpx.AsyncClient, readers: Any
) -> None:
    reader = await readers()

    async def never(inspection_id: Any) -> None:
        assert await reader.inspections.take(inspection_id)

    reader.answer = never
    reply = await http.post(LOAD, json=SQL)
    assert error_of(reply)[:2] == (504, "deadline_exceeded")


PLAIN = Capabilities(kinds=frozenset(), features=frozenset(), max_rank=16)
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
IS_DORA = (
    "adapter sql is a DoRA adapter, and no live worker of this pool serves DoRA: start one with "
    "--engine native"
)


def finds_dora(asked: Inspection) -> Findings:
    found = finds(asked)
    assert found.adapter
    return replace(found, adapter=replace(found.adapter, kinds=frozenset({AdapterKind.DORA})))


async def test_a_request_that_no_live_worker_serves_is_a_503_that_names_the_need(
    http: httpx.AsyncClient, registry: Registry, queue: Queue
) -> None:
    adapter = finds_dora(Inspection(name="sql", source="/adapters/sql")).adapter
    assert adapter
    await registry.load_adapter(adapter, replace=False)
    await ScriptedWorker.start(queue, PLAIN)
    reply = await http.post("/v1/chat/completions", json={"model": "sql", **CHAT})
    assert error_of(reply) == (503, "adapter_unavailable", "model")
    assert reply.json()["error"]["message"] == IS_DORA
    assert int(reply.headers["retry-after"]) > 0


async def test_embeddings_that_no_live_worker_computes_are_a_503(
    http: httpx.AsyncClient, queue: Queue
) -> None:
    await ScriptedWorker.start(queue, PLAIN)
    reply = await http.post("/v1/embeddings", json={"model": BASE.name, "input": "hi"})
    assert error_of(reply)[:2] == (503, "adapter_unavailable")
    assert "serves requests for embeddings" in reply.json()["error"]["message"]


async def test_an_adapter_that_no_live_worker_serves_is_not_loaded(
    http: httpx.AsyncClient, registry: Registry, readers: Callable[..., Any]
) -> None:
    await readers(PLAIN, find=finds_dora)
    loaded = await http.post(LOAD, json=SQL)
    sent = await http.post(UPLOAD, params={"name": "sql", "config": "{}"}, content=b"x")
    for reply in (loaded, sent):
        assert error_of(reply)[:2] == (400, "adapter_rejected")
        assert reply.json()["error"]["message"] == IS_DORA
    assert await registry.adapter("sql") is None
    checked = (await http.post(VALIDATE, json=SQL)).json()
    assert (checked["valid"], checked["error"]["message"]) == (False, IS_DORA)


async def test_workers_that_serve_everything_check_adapters_first(
    http: httpx.AsyncClient, registry: Registry, readers: Callable[..., Any]
) -> None:
    def refuses(_: Inspection) -> Findings:
        code = ErrorCode.ADAPTER_REJECTED
        return Findings(error=JobError(code=code, message="this engine can't"))

    limited = await readers(PLAIN, find=refuses)
    await readers(find=finds_dora)
    assert (await http.post(LOAD, json=SQL)).status_code == 200
    assert limited.asked == []
    adapter = await registry.adapter("sql")
    assert adapter is not None
    assert adapter.kinds == {AdapterKind.DORA}
