"""Inspections by workers that answer, are silent or die."""

import asyncio
from typing import Any

import httpx
import pytest
from api_support import error_of, until
from raw_client import with_settings

from api.adapters import inspection
from shared.store.adapters.registry import Registry

LOAD = "/v1/load_lora_adapter"
SQL = {"lora_name": "sql", "lora_path": "/adapters/sql"}


async def test_without_a_worker_an_adapter_cannot_be_loaded(
    http: httpx.AsyncClient, registry: Registry
) -> None:
    reply = await http.post(LOAD, json=SQL)
    assert error_of(reply)[:2] == (503, "service_unavailable")
    assert "no worker is alive" in reply.json()["error"]["message"]


async def test_another_worker_is_asked_if_one_dies_during_the_inspection(
    http: httpx.AsyncClient, readers: Any, registry: Registry
) -> None:
    dying = await readers(dies=True)
    request = asyncio.create_task(http.post(LOAD, json=SQL))
    await until(lambda: bool(dying.asked))
    await readers()
    assert (await request).status_code == 200


async def test_an_inspection_that_killed_two_workers_is_not_sent_to_a_third(
    http: httpx.AsyncClient, readers: Any, registry: Registry
) -> None:
    workers = [await readers(dies=True) for _ in range(3)]
    reply = await http.post(LOAD, json=SQL)
    assert error_of(reply)[:2] == (503, "service_unavailable")
    assert "2 workers died" in reply.json()["error"]["message"]
    assert sum(len(worker.asked) for worker in workers) == 2


async def test_another_worker_is_asked_if_one_does_not_take_the_inspection(
    http: httpx.AsyncClient,
    readers: Any,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inspection, "TAKE_S", 0.1)
    monkeypatch.setattr(inspection, "POLL_S", 0.1)
    await readers(ignores_inspections=True)
    reply = await http.post(LOAD, json=SQL)
    assert error_of(reply)[0] == 503
    healthy = await readers()
    assert (await http.post(LOAD, json=SQL)).status_code == 200
    assert len(healthy.asked) == 1


@with_settings(deadline_s=0.5)
async def test_an_inspection_over_the_deadline_is_a_504(
    http: httpx.AsyncClient, readers: Any, registry: Registry
) -> None:
    reader = await readers()

    async def never(inspection_id: Any) -> None:
        assert await reader.inspections.take(inspection_id)

    reader.answer = never
    reply = await http.post(LOAD, json=SQL)
    assert error_of(reply)[:2] == (504, "deadline_exceeded")
