"""Base classes for readers of a tool call's arguments. The text arrives in pieces. Pure."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import orjson

Types = dict[str, frozenset[str]]
"""JSON types of each parameter of a tool. Parameters that are only strings are left out."""


class Head(NamedTuple):
    """Start of a call whose arguments are emitted while they arrive."""

    name: str
    start: int
    """Index in the body at which the arguments start."""


class TextParts:
    """Text in parts, so that appending to a long text doesn't copy it."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __str__(self) -> str:
        return "".join(self._parts)

    def append(self, text: str) -> None:
        """Add `text` at the end."""
        self._parts.append(text)
        self._length += len(text)

    def since(self, start: int) -> str:
        """Return the text from the index `start` on, without reading the parts before it."""
        tail, at = list[str](), self._length
        for part in reversed(self._parts):
            if at <= start:
                break
            tail.append(part)
            at -= len(part)
        return "".join(reversed(tail))[max(0, start - at) :]


class Bracketed(ABC):
    """Text from an opening bracket to the bracket that closes it."""

    quotes = '"'
    """Quotation marks that begin a string. The same mark ends the string, unless it is escaped."""

    def __init__(self) -> None:
        self.is_closed = False
        self.is_broken = False
        """Whether a character has arrived that can't belong to the text."""
        self._text = TextParts()
        self._open: list[str] = []
        """Opening brackets that aren't closed yet, outermost first."""
        self._quote = ""
        """Quotation mark that ends the string at the end of the text; empty outside strings."""
        self._is_escaped = False

    def feed(self, text: str) -> str:
        """Read more text. In the first call, it starts with the opening bracket.

        Returns:
            The rest of `text`: what follows the closing bracket or, if a character is invalid, the
            text from that character on. It is empty while more text can follow.
        """
        start = len(self._text)
        for i, char in enumerate(text):
            if not self._accept(char, start + i):
                self.is_broken = True
                self._text.append(text[:i])
                return text[i:]
            if not self._open:
                self.is_closed = True
                self._text.append(text[: i + 1])
                return text[i + 1 :]
        self._text.append(text)
        return ""

    def text(self, start: int = 0) -> str:
        """Return the text so far, from the index `start` on."""
        return self._text.since(start)

    def head(self) -> Head | None:
        """Return the start of the call, or None if the call is emitted as a whole."""
        return None

    def arguments(self, start: int) -> str:
        """Return the text of the arguments so far, from the index `start` on."""
        return self.text(start)

    def _accept(self, char: str, index: int) -> bool:
        """Read one character. Return whether the character can follow the text before it."""
        if not self._quote:
            self._quote = char if char in self.quotes else ""
            return bool(self._quote) or self._accept_outside(char, index)
        if self._is_escaped:
            self._is_escaped = False
        elif char == "\\":
            self._is_escaped = True
        elif char == self._quote:
            self._quote = ""
        return True

    @abstractmethod
    def _accept_outside(self, char: str, index: int) -> bool:
        """Read a character outside strings, at `index`. Return whether it is allowed there."""


def loads(text: str) -> Any:
    """Return the value of a JSON text, or None if the text isn't JSON."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
