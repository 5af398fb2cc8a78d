"""Conversations with one or several models of a server, for `lorikeet chat`."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

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
from shared.errors import LorikeetError
from shared.protocol.ids import AdapterVersion, name_of

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 600.0
"""Maximum seconds without data. While a server computes, it sends a comment every 10 seconds."""
LOOK_UP_TIMEOUT_S = 5.0
"""Maximum seconds to wait for a model's candidate. The next prompt isn't shown before."""

Message = Mapping[str, str]


class CommandError(LorikeetError):
    """A chat command is unknown, or it names an unknown model."""


class CutOff(LorikeetError):
    """An answer has reached the limit of its tokens."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of an answer, and the version of the model that gives the answer."""

    text: str
    version: str
    """Empty if the server doesn't report it."""


class Client(ServerClient):
    """Client of one server's chat routes.

    Raises:
        ServerError: `url` isn't a URL.
    """

    timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)

    def __init__(
        self, url: str, api_key: str | None, *, temperature: float = 0, max_tokens: int = 1024
    ) -> None:
        """Create a client. An answer has at most `max_tokens` tokens."""
        super().__init__(url, api_key)
        self._temperature = temperature
        self._max_tokens = max_tokens

    async def answer(self, model: str, messages: Sequence[Message]) -> AsyncIterator[Piece]:
        """Yield the pieces of the answer. Closing the iterator cancels the job on the server.

        Raises:
            CutOff: the answer ends here, because it has `max_tokens` tokens.
            ServerError: the server can't be reached, refuses the request, or ends the answer early.
        """
        body = {
            "model": model,
            "messages": messages,
            "temperature": self._temperature,
            "max_tokens": self._max_tokens,
            "stream": True,
        }
        async with self._reply("/v1/chat/completions", body) as reply:
            is_cut = False
            async for line in sse_lines(reply):
                if line == "data: [DONE]":
                    if is_cut:
                        raise CutOff(f"(cut off; --max-tokens is {self._max_tokens:,})")
                    return
                if line.startswith("data: "):
                    chunk = orjson.loads(line.removeprefix("data: "))
                    for piece in _pieces(chunk):
                        yield piece
                    is_cut = is_cut or _is_cut(chunk)
        raise ServerError("the server ended the stream before the end of the answer")

    async def has_candidate(self, model: str) -> bool:
        """Return whether the adapter `model` has a candidate version.

        The result is False if the server doesn't answer or refuses the request. Reading an adapter
        needs a key with the scope `adapters`, and a chat doesn't.
        """
        url = f"{self.url}/v1/adapters/{quote(model)}"
        try:
            async with httpx.AsyncClient(**self.options) as http:
                reply = await http.get(url, timeout=LOOK_UP_TIMEOUT_S)
            return reply.is_success and bool(orjson.loads(reply.content).get("candidate"))
        except (httpx.HTTPError, orjson.JSONDecodeError):
            return False

    @asynccontextmanager
    async def _reply(self, path: str, body: Any) -> AsyncIterator[httpx.Response]:
        """Post `body`, and provide the successful reply. The reply's body isn't read yet."""
        is_answering = False
        try:
            async with (
                httpx.AsyncClient(**self.options) as http,
                http.stream("POST", f"{self.url}{path}", json=body) as reply,
            ):
                is_answering = True
                if not reply.is_success:
                    raise ServerError(reason_of(reply.status_code, await reply.aread(), self.url))
                yield reply
        except httpx.HTTPError as error:
            if not is_answering:
                raise ServerError(no_answer(self.url, error)) from None
            reason = f"broke before the end of the answer: {error_text(error)}"
            raise ServerError(f"the connection to {self.url} {reason}") from None


@dataclass(slots=True)
class Talk:
    """Conversation with one model."""

    model: str
    history: list[Message] = field(default_factory=list)
    answer: str = ""
    """Text of the latest answer, as far as it has arrived."""
    error: str = ""
    """Message of the error that ended the latest request, or empty if it succeeded."""
    notes: list[str] = field(default_factory=list)
    """Why the latest answer is incomplete, and the version that gave it, if either is notable."""
    version: str = ""
    """Version that gave the latest answer of this model. Empty before the first answer."""

    async def ask(self, client: Client, prompt: str, show: Callable[[str], None]) -> None:
        """Send `prompt`, and call `show` with the text of each piece of the answer.

        If the call is cancelled, the history keeps the part of the answer received so far. If the
        server fails, the error's message is stored in `error`. The prompt is removed from the
        history after an error, or if no part of an answer was received.

        The version that answered is noted if the previous answer had another one, or if the model
        has a candidate version.
        """
        self.answer = self.error = ""
        self.notes = []
        previous = self.version
        try:
            await self._receive(client, prompt, show)
        finally:
            is_other = previous not in ("", self.version)
            if is_other:
                self._note_version()
        if not is_other and self._may_vary and await client.has_candidate(self.model):
            self._note_version()

    async def _receive(self, client: Client, prompt: str, show: Callable[[str], None]) -> None:
        """Send `prompt`, and receive the answer."""
        self.history.append({"role": "user", "content": prompt})
        try:
            async for piece in client.answer(self.model, self.history):
                self.version = piece.version or self.version
                self.answer += piece.text
                show(piece.text)
        except CutOff as note:
            self.notes.append(str(note))
        except ServerError as error:
            self.error = str(error)
        finally:
            if self.answer and not self.error:
                self.history.append({"role": "assistant", "content": self.answer})
            else:
                self.history.pop()

    @property
    def _may_vary(self) -> bool:
        """Whether another version could have given the latest answer."""
        return bool(self.answer and self.version) and self.version != self.model

    def _note_version(self) -> None:
        self.notes.append(f"(answered by {self.version})")


class Conversation:
    """One conversation (`Talk`) for each selected model. All models get the same prompts."""

    def __init__(self, names: Sequence[str], models: Sequence[str]) -> None:
        self.names = names
        self.talks: list[Talk] = []
        self._versions: dict[str, str] = {}
        """Version that gave the latest answer of each model that was selected before."""
        self.switch_to(models)

    @property
    def models(self) -> list[str]:
        """The names of the selected models."""
        return [talk.model for talk in self.talks]

    def switch_to(self, models: Sequence[str]) -> None:
        """Select `models` in place of the current selection, and start a new conversation.

        The answers of one model in the history would change those of another. A model can be one
        version in full, as NAME@DIGEST. The first request finds out whether this version exists.

        Raises:
            CommandError: the server doesn't serve one of `models`, or one is given twice.
        """
        for model in models:
            if model not in self.names and name_of(AdapterVersion(model)) not in self.names:
                raise CommandError(f"there is no model {model}, only {', '.join(self.names)}")
        if len(set(models)) < len(models):
            raise CommandError(f"{', '.join(models)}: give each model once")
        self._versions |= {talk.model: talk.version for talk in self.talks}
        self.talks = [Talk(model, version=self._versions.get(model, "")) for model in models]

    def reset(self) -> None:
        """Clear the history of all models."""
        for talk in self.talks:
            talk.history.clear()


def _pieces(chunk: dict[str, Any]) -> list[Piece]:
    if "error" in chunk:
        raise ServerError(chunk["error"]["message"])
    version = chunk.get("weight_version", "")
    return [Piece(text, version) for c in chunk["choices"] if (text := c["delta"].get("content"))]


def _is_cut(chunk: dict[str, Any]) -> bool:
    return any(choice.get("finish_reason") == "length" for choice in chunk["choices"])
