"""Long lists in pieces, so that no pipeline keeps Redis or the event loop for long."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
CHUNK = 500
"""Items of one round trip; it takes milliseconds."""


def chunks(items: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """Split `items` into runs of at most `size`, in their order."""
    return (items[start : start + size] for start in range(0, len(items), size))
