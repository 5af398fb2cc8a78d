"""Interface to official client libraries: requests that they send, and parts that they yield.

Fields of requests are those of the HTTP API, so that programs in any language can send them.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from ops.lab.chaos.load.requests import Question
from shared.errors import LorikeetError


class Api(StrEnum):
    """APIs whose streams the client libraries can read."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    MESSAGES = "messages"


@dataclass(frozen=True, slots=True, kw_only=True)
class SdkRequest:
    """One request for a stream. Can be sent as JSON."""

    api: Api
    url: str
    """URL of the front end, without a path."""
    fields: Mapping[str, Any]
    """Fields of the body."""
    headers: Mapping[str, str]
    """Headers in addition to those of the library."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The part of a choice that one event of a stream adds."""

    choice: int = 0
    text: str = ""
    finish: str | None = None
    """Finish reason, in the words of a chat completion."""
    job: str | None = None
    """Id of the job; only the first part of a stream has it."""


class SdkError(LorikeetError):
    """The library raised an error as it does for a failed request or a broken connection."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status; None if the error isn't a response."""


class SdkChoked(LorikeetError):
    """The library couldn't read the server's response."""


class Sdk(Protocol):
    """A client library."""

    name: str
    apis: frozenset[Api]
    """APIs that the library speaks."""

    def stream(self, request: SdkRequest) -> AsyncIterator[Part]:
        """Yield the parts of a stream. The first one names the job.

        Raises:
            SdkError: the request failed, or the stream broke.
            SdkChoked: the library can't read the stream.
        """


FINISHES: Mapping[str, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "completed": "stop",
    "incomplete": "length",
}
"""Finish reasons of messages and responses, in the words of a chat completion."""


def fields_of(api: Api, question: Question) -> dict[str, Any]:
    """Return the fields of a body that asks `question`. Responses and messages have one choice."""
    fields = {**question.fields, "stream": True}
    if api in (Api.CHAT, Api.COMPLETIONS):
        return fields
    assert question.n == 1
    del fields["n"]
    if api is Api.RESPONSES:
        fields["max_output_tokens"] = fields.pop("max_tokens")
        fields["input"] = fields.pop("messages")
    return fields
