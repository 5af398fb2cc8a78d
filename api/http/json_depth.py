"""How deeply JSON is nested. Pure."""

from typing import Any

MAX_DEPTH = 100
"""Of what clients send freely. Jobs are written by orjson, which gives up at 254 levels."""


def is_deep(value: Any, max_depth: int = MAX_DEPTH) -> bool:
    """Whether lists and objects are nested in more than `max_depth` levels."""
    if not isinstance(value, dict | list):
        return False
    children = value.values() if isinstance(value, dict) else value
    return max_depth == 0 or any(is_deep(child, max_depth - 1) for child in children)
