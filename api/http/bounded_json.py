"""Parses JSON from clients within a budget, which bounds the time and memory of its checks. Pure.

The values are counted in the text, before any object exists.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from shared.json_text import depth, outside_strings, unescaped
from shared.python_json import MAX_DEPTH

MAX_NODES = 1 << 16
"""Maximum number of arrays, objects and strings, which include the names of fields.

A conversation of 1,000 messages with tool calls has about 15,000, and 128 tools with ten arguments
each have about 10,000.
"""
MAX_VALUES = 500_000
"""Maximum number of values in lists and objects. Only lists of token ids have so many."""


@dataclass(slots=True)
class JsonBudget:
    """What texts of JSON may still hold. Each text is parsed at the expense of later ones."""

    nodes: int = MAX_NODES
    values: int = MAX_VALUES

    def loads(self, text: bytes) -> Any:
        """Parse JSON.

        Raises:
            ValueError: the text isn't JSON, or `spend` raises it.
        """
        self.spend(text)
        return orjson.loads(text)

    def spend(self, text: bytes) -> None:
        """Count what a text of JSON holds, if it is valid.

        Raises:
            ValueError: it exceeds the budget or is nested too deeply. The message is a predicate.
        """
        plain = unescaped(text)
        self._spend_nodes(plain.count(b'"') // 2)
        outside = outside_strings(plain)
        self._spend_nodes(outside.count(b"[") + outside.count(b"{"))
        self.values -= outside.count(b",")
        if self.values < 0:
            raise ValueError(f"has more than {MAX_VALUES} values")
        if depth(outside) > MAX_DEPTH:
            raise ValueError(f"is nested in more than {MAX_DEPTH} levels")

    def _spend_nodes(self, number: int) -> None:
        self.nodes -= number
        if self.nodes < 0:
            raise ValueError(f"has more than {MAX_NODES} arrays, objects and strings")
