"""Client of the API's chat routes, for `lorikeet chat`."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from ops.sse_lines import sse_lines
from shared.api_keys import is_loopback
from shared.errors import LorikeetError

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 600.0
"""Maximum seconds without data from the server.

Long waits for the next piece of an answer don't exceed the limit, because the server sends a
comment every ten seconds meanwhile.
"""

Message = Mapping[str, str]


class ServerError(LorikeetError):
    """The server can't be reached, refuses the request, or ends the answer early."""


class Client:
    """Client of one server's chat routes.

    Raises:
        ServerError: `url` isn't a URL.
    """

    def __init__(self, url: str, api_key: str | None, temperature: float = 0) -> None:
        self.url = server_url(url)
        self._uses_environment = uses_environment(self.url)
        self._temperature = temperature
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    async def models(self) -> list[str]:
        """Return the names of the models, the base model first.

        Raises:
            ServerError: the server can't be reached, refuses the request, or has no model yet.
        """
        async with self._reply("GET", "/v1/models") as reply:
            models = orjson.loads(await reply.aread())["data"]
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
        async with self._reply("POST", "/v1/chat/completions", body) as reply:
            async for line in sse_lines(reply):
                if line == "data: [DONE]":
                    return
                if line.startswith("data: "):
                    for piece in _pieces(orjson.loads(line.removeprefix("data: "))):
                        yield piece
        raise ServerError("the server ended the stream before the end of the answer")

    @asynccontextmanager
    async def _reply(
        self, method: str, path: str, body: Any = None
    ) -> AsyncIterator[httpx.Response]:
        """Send a request, and provide the successful reply, whose body isn't read yet."""
        timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        is_answering = False
        try:
            async with (
                httpx.AsyncClient(trust_env=self._uses_environment, timeout=timeout) as http,
                http.stream(method, f"{self.url}{path}", json=body, headers=self._headers) as reply,
            ):
                is_answering = True
                if not reply.is_success:
                    raise ServerError(reason_of(reply.status_code, await reply.aread()))
                yield reply
        except httpx.HTTPError as error:
            raise ServerError(self._explain(error, is_answering)) from None

    def _explain(self, error: httpx.HTTPError, is_answering: bool) -> str:
        reason = str(error) or type(error).__name__
        if is_answering:
            return f"the connection to {self.url} broke before the end of the answer: {reason}"
        return f"no answer from {self.url}: {reason}; `lorikeet up` starts a server"


def server_url(given: str) -> str:
    """Return the URL of a server, to which paths can be added.

    Other clients want the base URL, which ends with `/v1`. This ending is removed.

    Raises:
        ServerError: `given` isn't a URL.
    """
    try:
        url = httpx.URL(given)
        urlsplit(given)  # refuses an address such as http://[bad, which httpx accepts
        is_http = url.scheme in ("http", "https") and bool(url.host)
    except (httpx.InvalidURL, ValueError):
        is_http = False
    if not is_http:
        raise ServerError(
            f"{given!r} isn't a URL such as http://127.0.0.1:23333; correct --url or LORIKEET_URL"
        )
    return given.rstrip("/").removesuffix("/v1")


def uses_environment(url: str) -> bool:
    """Return whether requests to `url`, unless it is local, use the proxy of the environment."""
    return not is_loopback(httpx.URL(url).host)


def _pieces(chunk: dict[str, Any]) -> list[str]:
    if "error" in chunk:
        raise ServerError(chunk["error"]["message"])
    return [text for c in chunk["choices"] if (text := c["delta"].get("content"))]


def reason_of(status: int, body: bytes) -> str:
    """Return the message of the error in `body`.

    If `body` has none, the text names the status. For status 401, a hint is added to the message.
    """
    try:
        message: str = orjson.loads(body)["error"]["message"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"the server answered with status {status}"
    return (
        f"{message}; give it with --api-key or in LORIKEET_API_KEYS" if status == 401 else message
    )
