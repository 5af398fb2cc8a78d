"""Measures JSON without parsing it, in time that is linear in its size. Pure.

The values of JSON from clients are counted in the text, before any object exists. This bounds the
time and memory of its checks.
"""

from dataclasses import dataclass, field
from itertools import accumulate

MAX_DEPTH = 128
"""Maximum nesting of arrays and objects in JSON from clients and from adapters' files.

Deeper text would use the Python stack up, and finalizers that the garbage collector runs at that
moment would fail. orjson can write 254 levels, and messages between processes put at most 10 levels
around a client's JSON.
"""
MAX_NODES = 1 << 16
"""Maximum number of arrays, objects and strings, which include the names of fields.

A conversation of 1,000 messages with tool calls has about 15,000, and 128 tools with ten arguments
each have about 10,000.
"""
MAX_VALUES = 500_000
"""Maximum number of values in lists and objects. Only lists of token ids have so many."""

_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
"""Change of the nesting at each bracket."""
_NO_BRACKETS = bytes(set(range(256)) - set(_STEPS))


class TooComplex(ValueError):
    """A text of JSON exceeds a budget. The message is a predicate."""


@dataclass(slots=True)
class JsonBudget:
    """What texts of JSON may hold in all."""

    max_nodes: int = MAX_NODES
    max_values: int = MAX_VALUES
    num_nodes: int = field(default=0, init=False)
    num_values: int = field(default=0, init=False)

    def spend(self, text: bytes) -> None:
        """Count what a text of JSON holds, if it is valid.

        Raises:
            TooComplex: it exceeds the budget or is nested too deeply.
        """
        plain = unescaped(text)
        self._spend_nodes(plain.count(b'"') // 2)
        outside = outside_strings(plain)
        self._spend_nodes(outside.count(b"[") + outside.count(b"{"))
        self.num_values += outside.count(b",")
        if self.num_values > self.max_values:
            raise TooComplex(f"has more than {self.max_values} values")
        if depth(outside) > MAX_DEPTH:
            raise TooComplex(f"is nested in more than {MAX_DEPTH} levels")

    def _spend_nodes(self, number: int) -> None:
        self.num_nodes += number
        if self.num_nodes > self.max_nodes:
            raise TooComplex(f"has more than {self.max_nodes} arrays, objects and strings")


def unescaped(text: bytes) -> bytes:
    r"""Return JSON without escaped quotes, so that every `"` begins or ends a string.

    The text need not be valid. Then the result is right up to the first error, where parsers stop.
    """
    return text.replace(rb"\\", b"").replace(rb"\"", b"")


def outside_strings(text: bytes) -> bytes:
    """Return the parts of `unescaped` JSON that aren't in strings."""
    return b"".join(text.split(b'"')[::2])


def depth(outside: bytes) -> int:
    """Return how deeply arrays and objects are nested. `outside` has no strings."""
    brackets = outside.translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)
