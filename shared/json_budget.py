"""Limits on JSON from clients and from adapters' files. Pure.

Nesting and values are counted in the text, in linear time, before a parser creates objects. The
limits bound the time and memory of parsing the text and of all later checks. `MAX_LISTED` in
`api/schema/base.py` limits single lists.
"""

from dataclasses import dataclass, field
from itertools import accumulate

MAX_DEPTH = 128
"""Maximum nesting of arrays and objects in JSON from clients and from adapters' files.

Deeper nesting would exhaust Python's stack, and finalizers that the garbage collector runs at that
moment would fail. orjson can write at most 254 levels. Messages between processes add at most 10
levels to a client's JSON.
"""
MAX_NODES = 1 << 16
"""Maximum number of arrays, objects and strings. Names of fields count as strings.

A conversation of 1,000 messages with tool calls has about 15,000 of them, and 128 tools with ten
arguments each have about 10,000.
"""
MAX_VALUES = 500_000
"""Maximum number of values in arrays and objects. Only arrays of token ids need so many."""

_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
"""Change of the nesting depth at each bracket."""
_NO_BRACKETS = bytes(set(range(256)) - set(_STEPS))


class TooComplex(ValueError):
    """A JSON text exceeds its budget. The message lacks a subject: "has more than 9 values"."""


@dataclass(slots=True)
class JsonBudget:
    """Limits on the total contents of several JSON texts, and the contents counted so far."""

    max_nodes: int = MAX_NODES
    max_values: int = MAX_VALUES
    num_nodes: int = field(default=0, init=False)
    num_values: int = field(default=0, init=False)

    def spend(self, text: bytes) -> None:
        """Count the contents of `text`. If it isn't valid JSON, the counts may be wrong.

        Raises:
            TooComplex: the text exceeds the budget or is nested too deeply.
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

    If the text is invalid, the result is right up to the first error, where parsers stop.
    """
    return text.replace(rb"\\", b"").replace(rb"\"", b"")


def outside_strings(text: bytes) -> bytes:
    """Return the parts of a JSON text outside its strings. `text` is a result of `unescaped`."""
    return b"".join(text.split(b'"')[::2])


def depth(outside: bytes) -> int:
    """Return how deeply arrays and objects are nested in a result of `outside_strings`."""
    brackets = outside.translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)
