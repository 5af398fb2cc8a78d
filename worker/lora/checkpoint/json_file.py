"""Parses JSON files and caches the results by file content."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Concatenate, ParamSpec, TypeVar

from shared import python_json
from shared.errors import AdapterRejected
from shared.json_budget import JsonBudget, TooComplex

P = ParamSpec("P")
T = TypeVar("T")

MAX_CACHED_TEXTS = 8
"""Maximum number of cached results per parser.

Adapters that were trained with the same recipe have equal files."""
MAX_CACHED_BYTES = 320 << 10
"""Maximum size in bytes of a cached text. An adapter for 126 layers has a header of 265 kB."""


def json_object(text: bytes, name: str, budget: JsonBudget) -> dict[str, Any]:
    """Parse the JSON object `name`.

    Raises:
        AdapterRejected: `text` isn't a JSON object, or exceeds `budget`.
    """
    try:
        fields = python_json.loads(text, budget)
    except TooComplex as error:
        raise AdapterRejected(f"{name} {error}") from None
    except ValueError as error:
        raise AdapterRejected(f"{name} isn't JSON: {error}") from None
    if not isinstance(fields, dict):
        raise AdapterRejected(f"{name} isn't a JSON object")
    return fields


def cached_by_text(
    parse: Callable[Concatenate[bytes, P], T],
) -> Callable[Concatenate[bytes, P], T]:
    """Return a version of `parse` that caches results by arguments. Errors aren't cached."""
    cached_parse: Any = lru_cache(maxsize=MAX_CACHED_TEXTS)(parse)

    def parse_once(text: bytes, /, *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = (cached_parse if len(text) <= MAX_CACHED_BYTES else parse)(
            text, *args, **kwargs
        )
        return result

    return parse_once
