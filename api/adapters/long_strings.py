"""Takes the long strings out of a JSON text while it arrives, so that memory stays bounded. Pure.

An adapter in JSON is one long string of base64. To parse it, a JSON
parser would need several times the size of the string.
"""

import secrets
from collections.abc import Iterator
from enum import Enum, auto

from shared.errors import ErrorCode, failed, invalid_value

MIN_CHARS = 1 << 16
"""Minimum number of characters of a long string. Shorter strings stay in the text."""


class _In(Enum):
    """Place of the next character."""

    REST = auto()
    """Outside of strings."""
    STRING = auto()
    """In a string that has fewer than `MIN_CHARS` characters so far."""
    ESCAPE = auto()
    """After a backslash in a string that has fewer than `MIN_CHARS` characters so far."""
    LONG = auto()
    """In a long string."""


class LongStrings:
    """Splits a JSON text into its long strings and `rest`.

    In `rest`, a unique name replaces the content of each long string.
    """

    def __init__(self, *, max_rest: int) -> None:
        """Create an object. Without its long strings, the text may have up to `max_rest` bytes."""
        self.rest = bytearray()
        self.names: list[str] = []
        """Names of the long strings so far."""
        self._max_rest = max_rest
        self._place = _In.REST
        self._start = 0
        """Index in `rest` of the first character of the current string."""

    def split(self, chunk: bytes) -> Iterator[bytes]:
        """Process the next bytes of the text, and yield the bytes that belong to long strings.

        Each yielded item belongs to a single long string. A name is added to `names` before the
        first part of each long string is yielded.

        Raises:
            JobFailed: `rest` is too large, or a long string has a backslash.
        """
        at = 0
        while at < len(chunk):
            if self._place is _In.LONG:
                end = _next(chunk, b'"', at)
                if b"\\" in chunk[at:end]:
                    raise invalid_value("a long string of the body isn't base64")
                yield chunk[at:end]
                at = self._close(chunk, end)
            else:
                at = self._keep(chunk, at)
                if long := self._became_long():
                    yield long
            is_between = self._place in (_In.REST, _In.LONG)  # the present string may become long
            if is_between and len(self.rest) > self._max_rest:
                message = f"without long strings, the body has more than {self._max_rest} bytes"
                raise failed(ErrorCode.REQUEST_TOO_LARGE, message)

    def _keep(self, chunk: bytes, at: int) -> int:
        """Copy characters from the index `at` to `rest` until the place changes.

        Returns the index in `chunk` after the last copied character.
        """
        match self._place:
            case _In.REST:
                end = _next(chunk, b'"', at)
                self.rest += chunk[at : end + 1]
                if end < len(chunk):
                    self._place, self._start = _In.STRING, len(self.rest)
                return end + 1
            case _In.ESCAPE:
                self.rest += chunk[at : at + 1]
                self._place = _In.STRING
                return at + 1
        end = min(_next(chunk, b'"', at), _next(chunk, b"\\", at))
        end = min(end, at + MIN_CHARS)
        self.rest += chunk[at:end]
        if chunk[end : end + 1] == b"\\":
            self.rest += b"\\"
            self._place = _In.ESCAPE
            return end + 1
        return self._close(chunk, end)

    def _close(self, chunk: bytes, end: int) -> int:
        """End the current string if its closing quote is at the index `end`.

        Returns the index in `chunk` at which the caller must continue.
        """
        if chunk[end : end + 1] != b'"':
            return end
        self.rest += b'"'
        self._place = _In.REST
        return end + 1

    def _became_long(self) -> bytes:
        """Return the characters of the current string if it has just become long, else nothing."""
        if self._place is not _In.STRING or len(self.rest) - self._start < MIN_CHARS:
            return b""
        long = bytes(self.rest[self._start :])
        if b"\\" in long:
            raise invalid_value("a long string of the body isn't base64")
        del self.rest[self._start :]
        self.names.append(secrets.token_hex(16))
        self.rest += self.names[-1].encode()
        self._place = _In.LONG
        return long


def _next(chunk: bytes, char: bytes, at: int) -> int:
    """Return the index of the first `char` at or after `at`, or `len(chunk)` if there is none."""
    found = chunk.find(char, at)
    return len(chunk) if found < 0 else found
