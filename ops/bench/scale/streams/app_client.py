"""Calls the front end's app in the same process, without HTTP."""

import asyncio
from typing import Any

from fastapi import FastAPI
from starlette.types import Message, Scope

from ops.bench.scale.streams.received_stream import ReceivedStream

PATH = "/v1/completions"


class AppClient:
    """Sends completion requests to an app as an ASGI server does."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def send(self, body: bytes, received: ReceivedStream) -> None:
        """Send one request, and pass the pieces of its answer to `received` until its end."""
        unread = [body]

        async def receive() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            await asyncio.Event().wait()  # the client stays; the app cancels this wait
            raise AssertionError

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = dict(message["headers"])
                received.begin(message["status"], headers.get(b"x-lorikeet-job", b"").decode())
            elif message.get("body"):
                received.receive(message["body"])

        await self._app(_scope(body), receive, send)


def _scope(body: bytes) -> Scope:
    headers: list[tuple[bytes, bytes]] = [
        (b"host", b"127.0.0.1"),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": PATH,
        "raw_path": PATH.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    return scope
