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

CONNECT_TIMEOUT_S = 10.0
UNAUTHENTICATED, DENIED = 401, 403
ADVICE = {
    "GET /v1/models lists all models.": "`lorikeet adapters list` shows the names.",
    "GET /v1/keys lists all ids": "`lorikeet keys list` shows all ids",
    "GET /docs lists all URLs": "is the URL of the server right?",
}
"""Advice that the server gives to programs, and what commands say instead."""
Body = dict[str, Any]


class ServerError(LorikeetError):
    """The server can't be reached, refuses the request, or ends the answer early."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status of the answer; None if there was no answer."""


class ServerAnswer(Body):
    """JSON object that a server has sent. A missing field means that the server isn't Lorikeet."""

    def __init__(self, content: Body, url: str) -> None:
        super().__init__(content)
        self._url = url

    def __missing__(self, name: str) -> Any:
        raise another_server(self._url)


class Unavailable(ServerError):
    """The server can't be reached, or can't answer at present."""


class ServerClient:
    """Sends requests to one server.

    Raises:
        ServerError: `url` isn't a URL.
    """

    timeout = httpx.Timeout(60.0, connect=CONNECT_TIMEOUT_S)

    def __init__(self, url: str, api_key: str | None) -> None:
        self.url = server_url(url)
        self.options = {**client_options(self.url, api_key), "timeout": self.timeout}
        """Options of httpx for requests to the server."""

    def models(self) -> list[str]:
        """Return the names of the models, the base model first.

        Raises:
            ServerError: the server can't be reached, refuses the request, or has no model yet.
        """
        models = self._models()
        if not models:
            raise ServerError(
                f"the server at {self.url} has no model yet; wait until a worker is ready"
            )
        return [model["id"] for model in models]

    def check(self) -> None:
        """Check that the server answers and accepts the key, even if the key has few rights.

        Raises:
            ServerError: the server can't be reached, or refuses the key.
        """
        try:
            self._models()
        except ServerError as error:
            if error.status != DENIED:
                raise

    def _models(self) -> list[Body]:
        models = self._call("GET", "/v1/models")["data"]
        if not isinstance(models, list):
            raise another_server(f"{self.url}/v1/models")
        return models

    def _send(self, method: str, path: str, **sent: Any) -> bytes:
        """Send a request, and return the body of its successful response.

        Raises:
            Unavailable: the server can't be reached, or can't answer at present.
            ServerError: the server refuses the request.
        """
        try:
            response = httpx.request(method, f"{self.url}{path}", **{**self.options, **sent})
        except httpx.HTTPError as error:
            raise Unavailable(no_answer(self.url, error)) from None
        if not response.is_success:
            kind = Unavailable if response.status_code in UNAVAILABLE else ServerError
            reason = reason_of(response.status_code, response.content, self.url)
            raise kind(reason, response.status_code)
        return response.content

    def _call(self, method: str, path: str, **sent: Any) -> Body:
        """Send a request, and return the JSON object of its successful response.

        Raises:
            ServerError: `_send` raised it, or the answer isn't a JSON object.
        """
        try:
            found = orjson.loads(self._send(method, path, **sent))
        except orjson.JSONDecodeError:
            found = None
        url = f"{self.url}{path.partition('?')[0]}"
        if not isinstance(found, dict):
            raise another_server(url)
        return ServerAnswer(found, url)


def another_server(url: str) -> ServerError:
    """Return the error for an answer from `url` that Lorikeet never sends."""
    return ServerError(f"{url} doesn't answer as Lorikeet does; is the URL right?")


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
        guess = given and "://" not in given
        advice = f"did you mean http://{given}?" if guess else "correct --url or LORIKEET_URL"
        raise ServerError(f"{given!r} isn't a URL such as http://127.0.0.1:23333; {advice}")
    return given.rstrip("/").removesuffix("/v1")


def client_options(url: str, api_key: str | None = None) -> dict[str, Any]:
    """Return options of httpx for requests to `url`: the key, and whether a proxy may be used."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    # A proxy would resolve a loopback address to the proxy's own machine.
    return {"headers": headers, "trust_env": not is_loopback(urlsplit(url).hostname or "")}


def no_answer(url: str, error: httpx.HTTPError) -> str:
    """Return the message for a request that got no response."""
    text = error_text(error)
    if url.startswith("https:") and "SSL" in text:
        return f"no answer from {url}: {text}; does the server speak http instead of https?"
    return (
        f"no answer from {url}: {text}; `lorikeet up` starts a server, and --url or `lorikeet "
        "login` names another one"
    )


def error_text(error: Exception) -> str:
    """Return the message of an error, or the name of its type if it has none."""
    return str(error) or type(error).__name__


def reason_of(status: int, body: bytes, url: str) -> str:
    """Return the message of the error in `body`, which is the answer of the server at `url`.

    If `body` contains no error, return a text that names the status. For status 401, the message
    ends with a hint.
    """
    try:
        message = str(orjson.loads(body)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"the server at {url} answered with status {status}; is the URL right?"
    if status == UNAUTHENTICATED:
        hint = f"give one with --api-key, or let `lorikeet login {url}` remember one"
        return f"{message.partition(';')[0]}; {hint}"
    for advice, said in ADVICE.items():
        message = message.replace(advice, said)
    return message


async def sse_lines(reply: httpx.Response) -> AsyncIterator[str]:
    """Yield the lines of a stream of server-sent events, without their line ends.

    Unlike `aiter_lines`, this function doesn't split JSON at U+2028.
    """
    rest = b""
    async for piece in reply.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode()
