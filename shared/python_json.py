"""Parses JSON that Python's json module may have written, such as files of adapters."""

import json
from typing import Any

from shared.json_budget import JsonBudget


def loads(text: bytes | str, budget: JsonBudget) -> Any:
    """Parse JSON that may contain NaN, Infinity, or numbers that are too large for a float.

    Python's json module writes NaN and Infinity by default, although JSON has no such values. Bytes
    may be UTF-8 with or without a byte order mark, UTF-16 or UTF-32, as in Python's json module.

    Raises:
        TooComplex: the text exceeds the budget.
        ValueError: the text isn't JSON.
    """
    decoded = text if isinstance(text, str) else text.decode(json.detect_encoding(text))
    budget.spend(decoded.encode(errors="replace"))
    return json.loads(decoded)
