"""Exceptions and disconnected clients."""

import asyncio
from typing import Any

import httpx
import pytest
from api_support import RunningApp, until
from structlog.testing import capture_logs

from api.metrics.metrics import Metrics

CHAT = "/v1/chat/completions"
BODY = {"model": "extract", "messages": [{"role": "user", "content": "hi"}]}


async def test_a_client_that_disconnects_while_it_sends_causes_no_error(server: RunningApp) -> None:
    _, port = server.url.removeprefix("http://").split(":")
    with capture_logs() as logs:
        _, writer = await asyncio.open_connection("127.0.0.1", int(port))
        writer.write(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode())
        await writer.drain()
        writer.close()
        await until(lambda: 'status="499"' in server.pool.part(Metrics).exposition(None).decode())
    assert logs == []


async def test_an_unexpected_exception_is_a_500_without_internals(
    server: RunningApp, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr("api.answers.draft.Draft.of", broken)
    with capture_logs() as logs:
        response = await http.post(CHAT, json=BODY)
    assert [(entry["event"], entry["path"]) for entry in logs] == [("request_failed", CHAT)]
    assert response.status_code == 500
    assert response.json()["error"] == {
        "message": "internal error; the server's log has the details under this response's "
        "X-Request-Id",
        "type": "server_error",
        "param": None,
        "code": "internal_error",
    }
    assert 'status="500"' in server.pool.part(Metrics).exposition(None).decode()


async def test_a_request_that_is_cancelled_before_its_response_is_told_to_come_again(
    server: RunningApp, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks: list[asyncio.Task[Any] | None] = []

    async def hanging(*_: object, **__: object) -> None:
        tasks.append(asyncio.current_task())
        await asyncio.Event().wait()

    monkeypatch.setattr("api.answers.draft.Draft.of", hanging)
    request = asyncio.create_task(http.post(CHAT, json=BODY))
    await until(lambda: tasks)
    assert tasks[0]
    tasks[0].cancel()  # as uvicorn does with requests that run longer than the drain time
    response = await request
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "server_stopping"
    assert "retry-after" in response.headers
