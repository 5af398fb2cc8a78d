"""Client of the API's chat routes, for `lorikeet chat`."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson

from ops.server_client import (
    ServerClient,
    ServerError,
    error_text,
    no_answer,
    reason_of,
    sse_lines,
)

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 600.0
"""Maximum seconds without data. A server that computes sends a comment every ten seconds."""

Message = Mapping[str, str]


class Client(ServerClient):
    """Client of one server's chat routes.

    Raises:
        ServerError: `url` isn't a URL.
    """

    timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)

    def __init__(self, url: str, api_key: str | None, temperature: float = 0) -> None:
        super().__init__(url, api_key)
        self._temperature = temperature

    def models(self) -> list[str]:
        """Return the names of the models, the base model first.

        Raises:
            ServerError: the server can't be reached, refuses the request, or has no model yet.
        """
        models = self._call("GET", "/v1/models")["data"]
        if not models:
            raise ServerError(
                f"the server at {self.url} has no model yet; wait until a worker is ready"
            )
        return [model["id"] for model in models]

    async def answer(self, model: str, messages: Sequence[Message]) -> AsyncIterator[str]:
        """Yield the pieces of the answer. Closing the iterator cancels the job on the server.

        Raises:
            ServerError: the server can't be reached, refuses the request, or ends the answer early.
        """
        body = {
            "model": model,
            "messages": messages,
            "temperature": self._temperature,
            "stream": True,
        }
        async with self._reply("/v1/chat/completions", body) as reply:
            async for line in sse_lines(reply):
                if line == "data: [DONE]":
                    return
                if line.startswith("data: "):
                    for piece in _pieces(orjson.loads(line.removeprefix("data: "))):
                        yield piece
        raise ServerError("the server ended the stream before the end of the answer")

    @asynccontextmanager
    async def _reply(self, path: str, body: Any) -> AsyncIterator[httpx.Response]:
        """Post `body`, and provide the successful reply, whose body isn't read yet."""
        is_answering = False
        try:
            async with (
                httpx.AsyncClient(**self.options) as http,
                http.stream("POST", f"{self.url}{path}", json=body) as reply,
            ):
                is_answering = True
                if not reply.is_success:
                    raise ServerError(reason_of(reply.status_code, await reply.aread()))
                yield reply
        except httpx.HTTPError as error:
            raise ServerError(self._explain(error, is_answering)) from None

    def _explain(self, error: httpx.HTTPError, is_answering: bool) -> str:
        if is_answering:
            place = f"the connection to {self.url}"
            return f"{place} broke before the end of the answer: {error_text(error)}"
        return no_answer(self.url, error)


def _pieces(chunk: dict[str, Any]) -> list[str]:
    if "error" in chunk:
        raise ServerError(chunk["error"]["message"])
    return [text for c in chunk["choices"] if (text := c["delta"].get("content"))]
