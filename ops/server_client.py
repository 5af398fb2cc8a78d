"""Base of the clients of a running server: its URL, requests, errors and event streams."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from shared.api_keys import is_loopback
from shared.errors import LorikeetError

UNAVAILABLE = 429, 503
"""Statuses of a server that can't answer at present."""

Body = dict[str, Any]


class ServerError(LorikeetError):
    """The server can't be reached, refuses the request, or ends the answer early."""


class Unavailable(ServerError):
    """The server can't be reached, or can't answer at present."""


class ServerClient:
    """Sends requests to one server.

    Raises:
        ServerError: `url` isn't a URL.
    """

    timeout = httpx.Timeout(60.0)

    def __init__(self, url: str, api_key: str | None) -> None:
        self.url = server_url(url)
        self.options = {**client_options(self.url, api_key), "timeout": self.timeout}
        """Options of httpx for requests to the server."""

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

    def _send(self, method: str, path: str, **sent: Any) -> bytes:
        """Send a request, and return the body of its successful response.

        Raises:
            Unavailable: the server can't be reached, or can't answer at present.
            ServerError: the server refuses the request.
        """
        try:
            response = httpx.request(method, f"{self.url}{path}", **sent, **self.options)
        except httpx.HTTPError as error:
            raise Unavailable(no_answer(self.url, error)) from None
        if not response.is_success:
            kind = Unavailable if response.status_code in UNAVAILABLE else ServerError
            raise kind(reason_of(response.status_code, response.content))
        return response.content

    def _call(self, method: str, path: str, **sent: Any) -> Body:
        found: Body = orjson.loads(self._send(method, path, **sent))
        return found


def server_url(given: str) -> str:
    """Return the URL of a server in a form that paths can be appended to.

    Other clients expect a base URL that ends with `/v1`, so this ending is accepted and removed.

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


def client_options(url: str, api_key: str | None = None) -> dict[str, Any]:
    """Return options of httpx for requests to `url`: the key, and whether a proxy may be used."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    # A proxy would resolve a loopback address to the proxy's own machine.
    return {"headers": headers, "trust_env": not is_loopback(urlsplit(url).hostname or "")}


def no_answer(url: str, error: httpx.HTTPError) -> str:
    """Return the message for a request that got no response."""
    return f"no answer from {url}: {error_text(error)}; `lorikeet up` starts a server"


def error_text(error: Exception) -> str:
    """Return the message of an error, or the name of its type if it has none."""
    return str(error) or type(error).__name__


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


async def sse_lines(reply: httpx.Response) -> AsyncIterator[str]:
    """Yield the lines of a stream of server-sent events, without their line ends.

    Unlike `aiter_lines`, this function doesn't split JSON at U+2028.
    """
    rest = b""
    async for piece in reply.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode()
