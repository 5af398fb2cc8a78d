"""`lorikeet chat`: a conversation with a running server, streamed."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import urlsplit

import orjson
import typer
from rich.console import Console

from shared.access import is_loopback
from shared.errors import LorikeetError

FIRST_BYTE_TIMEOUT_S = 600.0

Message = dict[str, str]


class ServerError(LorikeetError):
    """The server can't be reached, or refuses; the message is the server's own."""


def chat(
    model: Annotated[
        str | None,
        typer.Argument(help="base model or adapter; by default the server's base model"),
    ] = None,
    url: Annotated[str, typer.Option(help="where the server is")] = "http://127.0.0.1:23333",
) -> None:
    """Talk to a model or an adapter; Ctrl-D or an empty line ends."""
    console = Console()
    model = model or _first_model(url)
    console.print(f"[dim]{model} at {url}; Ctrl-D or an empty line ends[/]", highlight=False)
    history: list[Message] = []
    while prompt := _read_line(console):
        history.append({"role": "user", "content": prompt})
        try:
            answer = _print_answer(console, stream_chat(url, model, history))
        except ServerError as error:
            if len(history) == 1:
                raise
            console.print(f"[red]{error}[/]", highlight=False)
            history.pop()
            continue
        history.append({"role": "assistant", "content": answer})


def stream_chat(url: str, model: str, messages: list[Message]) -> Iterator[str]:
    """The answer, piece by piece.

    Raises:
        ServerError: the server can't be reached, or refuses, or breaks off with a reason.
    """
    body = orjson.dumps({"model": model, "messages": messages, "stream": True})
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", body, {"Content-Type": "application/json"}
    )
    for line in _lines(request):
        if line.startswith(b"data: ") and line != b"data: [DONE]":
            yield from _pieces(orjson.loads(line.removeprefix(b"data: ")))


def _pieces(chunk: dict[str, Any]) -> Iterator[str]:
    if "error" in chunk:
        raise ServerError(chunk["error"]["message"])
    for choice in chunk["choices"]:
        if text := choice["delta"].get("content"):
            yield text


def _first_model(url: str) -> str:
    reply = b"".join(_lines(urllib.request.Request(f"{url}/v1/models")))
    models = orjson.loads(reply)["data"]
    if not models:
        raise ServerError(f"the server at {url} has no model yet")
    name: str = models[0]["id"]
    return name


def _lines(request: urllib.request.Request) -> Iterator[bytes]:
    try:
        with _opener(request).open(request, timeout=FIRST_BYTE_TIMEOUT_S) as reply:
            for line in reply:
                yield line.strip()
    except urllib.error.HTTPError as error:
        raise ServerError(_reason(error)) from None
    except OSError as error:
        raise ServerError(
            f"no answer from {request.full_url}: {error}; `lorikeet up` starts a server"
        ) from None


def _opener(request: urllib.request.Request) -> urllib.request.OpenerDirector:
    # A proxy of the environment would look for a loopback address on its own machine.
    if is_loopback(urlsplit(request.full_url).hostname or ""):
        return urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener()


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        message: str = orjson.loads(error.read())["error"]["message"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"the server answered {error.code} {error.reason}"
    return message


def _print_answer(console: Console, pieces: Iterator[str]) -> str:
    answer = ""
    for piece in pieces:
        console.print(piece, end="", markup=False, highlight=False, soft_wrap=True)
        answer += piece
    console.print()
    return answer


def _read_line(console: Console) -> str:
    try:
        return console.input("[bold]> [/]").strip()
    except EOFError:
        console.print()
        return ""
