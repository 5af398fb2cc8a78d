"""The part of a tool call that has its arguments. Pure."""

from typing import Any, NamedTuple, Protocol

import orjson


class Head(NamedTuple):
    """Start of a call whose arguments are emitted as they arrive."""

    name: str
    start: int
    """Index in the body at which the arguments start."""


class CallBody(Protocol):
    """Reads the arguments of one call from text that arrives in pieces."""

    @property
    def is_closed(self) -> bool:
        """Whether the body is complete."""
        ...

    @property
    def is_broken(self) -> bool:
        """Whether text has arrived that can't belong to the body."""
        ...

    def feed(self, text: str) -> str:
        """Read more text, and return the part of `text` after the body's end or its valid part."""
        ...

    def text(self, start: int = 0) -> str:
        """Return the body's text so far from the index `start` on."""
        ...

    def head(self) -> Head | None:
        """Return the call's head, or None while it isn't known where the arguments start."""
        ...

    def arguments(self, start: int) -> str:
        """Return the arguments' text so far from index `start` of the body on."""
        ...

    def call(self) -> tuple[str, str] | None:
        """Return the name and the JSON arguments in a complete body; None if it isn't a call."""
        ...


def loads(text: str) -> Any:
    """Return the value of a JSON text, or None if the text isn't JSON."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
