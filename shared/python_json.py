"""Parses JSON as Python's json module writes it."""

import json
import re
from itertools import accumulate
from typing import Any

MAX_DEPTH = 200
"""Maximum nesting of arrays and objects.

Deeper text would use the Python stack up, and finalizers that the garbage collector runs at that
moment would fail.
"""
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
"""A string. An unterminated one ends with the text, so that a search takes linear time."""
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
"""Change of the nesting at each bracket."""
_NO_BRACKETS = bytes(set(range(256)) - set(_STEPS))


def loads(text: bytes | str) -> Any:
    """Parse JSON that may contain NaN, Infinity, or numbers that are too large for a float.

    Python's json module writes NaN and Infinity by default, although JSON has no such values. Bytes
    may be UTF-8 with or without a byte order mark, UTF-16 or UTF-32, as in the json module.

    Raises:
        ValueError: the text isn't JSON, or is nested too deeply.
    """
    decoded = text if isinstance(text, str) else text.decode(json.detect_encoding(text))
    if _depth(decoded) > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
    return json.loads(decoded)


def _depth(text: str) -> int:
    """Return how deeply arrays and objects are nested."""
    outside_strings = _STRING.sub("", text).encode(errors="replace")
    brackets = outside_strings.translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)
