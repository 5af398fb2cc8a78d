"""Long lists in pieces, so that no pipeline keeps Redis or the event loop for long."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
CHUNK = 500
"""Items of one round trip; it takes milliseconds."""


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Split `items` into runs of at most `CHUNK`, in their order."""
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))
