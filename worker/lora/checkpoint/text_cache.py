"""What was worked out from a text is kept for the next one that is the same."""

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T")

MAX_KEPT = 16
"""Fine-tunes of one recipe have the same configuration and the same header."""
MAX_BYTES = 1 << 20
"""Of a text; what is larger may be meant to fill the memory."""


def kept(parse: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """`parse`, whose results are kept; errors aren't."""
    kept_parse = lru_cache(maxsize=MAX_KEPT)(parse)

    def parse_once(text: bytes) -> T:
        return (kept_parse if len(text) <= MAX_BYTES else parse)(text)

    return parse_once
