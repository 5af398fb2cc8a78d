"""Parses JSON as Python's json module writes it."""

import json
from typing import Any

from shared.json_text import depth, outside_strings, unescaped

MAX_DEPTH = 128
"""Maximum nesting of arrays and objects in JSON from clients and from adapters' files.

Deeper text would use the Python stack up, and finalizers that the garbage collector runs at that
moment would fail. orjson can write 254 levels, and messages between processes put at most 10 levels
around a client's JSON.
"""


def loads(text: bytes | str) -> Any:
    """Parse JSON that may contain NaN, Infinity, or numbers that are too large for a float.

    Python's json module writes NaN and Infinity by default, although JSON has no such values. Bytes
    may be UTF-8 with or without a byte order mark, UTF-16 or UTF-32, as in the json module.

    Raises:
        ValueError: the text isn't JSON, or is nested too deeply.
    """
    decoded = text if isinstance(text, str) else text.decode(json.detect_encoding(text))
    if depth(outside_strings(unescaped(decoded.encode(errors="replace")))) > MAX_DEPTH:
        raise ValueError(f"it is nested in more than {MAX_DEPTH} levels")
    return json.loads(decoded)
