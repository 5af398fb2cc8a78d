"""Parses JSON as Python's json module writes it."""

import json
from typing import Any

import orjson


def loads(text: bytes | str) -> Any:
    """Parse JSON that may contain NaN, Infinity, or numbers that are too large for a float.

    Python's json module writes NaN and Infinity by default, although JSON has no such values.

    Text that is nested too deeply is left to orjson, whose parser needs no Python stack. Parsing it
    with the json module would use the stack up, and finalizers that the garbage collector runs at
    that moment would fail.

    Raises:
        ValueError: the text isn't JSON, or is nested too deeply.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if str(error).startswith("depth limit exceeded"):
            raise
        reason = str(error)
    try:
        return json.loads(text if isinstance(text, str) else text.decode())
    except (ValueError, RecursionError):
        raise ValueError(reason) from None
