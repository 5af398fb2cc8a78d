"""Answers requests that this process makes, without a connection.

The control process answers the requests of batches this way (`ops/control/batches/answers.py`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from starlette.datastructures import Headers
from starlette.types import Message

from api.http.errors import failure_response
from api.http.request_id import new_request_id
from shared.protocol.access.rights import Access

Answering = Callable[[Request, Access, dict[str, Any]], Awaitable[Response]]
"""Returns the response to a request, given the request, its rights and its JSON body."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Response to a request that this process made."""

    request_id: str
    """Id of the request in the log."""
    status: int
    headers: Mapping[str, str]
    """Values of the headers, keyed by their names in lower case."""
    body: bytes


async def reply_to(
    app: FastAPI,
    answering: Answering,
    body: dict[str, Any],
    *,
    num_bytes: int,
    path: str,
    access: Access,
    headers: Mapping[str, str],
) -> Reply:
    """Answer one request. The request uses idle capacity only.

    `app` must have started already. `answering` answers requests to the endpoint `path`. `body` is
    the request's parsed JSON. Callers must have checked its size, `num_bytes`, and its complexity.

    Raises:
        Exception: the request failed with an unexpected error.
    """
    state = {"access": access, "tenant": access.tenant, "num_body_bytes": num_bytes}
    request = Request(
        {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": [(name.lower().encode(), text.encode()) for name, text in headers.items()],
            "app": app,
            "state": state | {"is_preemptible": True},
        }
    )
    request_id = new_request_id()
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        try:
            return await _sent(request_id, request, await answering(request, access, body))
        except Exception as failure:  # noqa: BLE001  # `failure_response` raises unexpected errors
            return await _sent(request_id, request, failure_response(request, failure))


async def _sent(request_id: str, request: Request, response: Response) -> Reply:
    start: Message = {}
    parts = []

    async def receive() -> Message:
        forever: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        return await forever  # the client never disconnects

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        else:
            parts.append(message.get("body", b""))

    await response(request.scope, receive, send)
    headers = dict(Headers(raw=start["headers"]))
    return Reply(request_id, start["status"], headers, b"".join(parts))
