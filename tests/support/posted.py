"""Requests with fields that OpenAI's client doesn't have, and their answers."""

from typing import Any

import httpx
from sse_events import sse_events


def path_of(body: dict[str, Any]) -> str:
    return f"/v1/{'chat/completions' if 'messages' in body else 'completions'}"


async def whole(http: httpx.AsyncClient, body: dict[str, Any]) -> Any:
    response = await http.post(path_of(body), json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def chunks(http: httpx.AsyncClient, body: dict[str, Any]) -> list[Any]:
    response = await http.post(path_of(body), json={**body, "stream": True})
    assert response.status_code == 200, response.text
    return [event.json for event in sse_events(response.text) if event.data != "[DONE]"]


async def error_of(http: httpx.AsyncClient, body: dict[str, Any]) -> Any:
    response = await http.post(path_of(body), json=body)
    assert response.status_code == 400, response.text
    return response.json()["error"]
