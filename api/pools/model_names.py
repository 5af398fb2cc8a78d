"""Names of a pool's models. For a wrong name, a similar one is suggested."""

from collections.abc import Callable, Iterable, Sequence
from difflib import SequenceMatcher
from itertools import islice

from api.pools.pool_status import CachedRead
from shared.store.adapters.registry import Registry

MAX_NAMES = 4096
"""Maximum number of names that are read. If a pool has more, a random selection is read."""
MAX_CHECKED = 512
"""Maximum number of names for which it is checked whether the client may use them."""
MAX_COMPARED = 64
"""Maximum number of names that are compared in full with a wrong name."""
MAX_CHARS = 100
"""Longer wrong names get no suggestion, because the comparison takes quadratic time."""
MAX_LENGTH_DIFFERENCE = 3
MIN_SIMILARITY = 0.6


class ModelNames:
    """Names of one pool's base model and adapters, read at most once a second."""

    def __init__(self, registry: Registry) -> None:
        async def read() -> Sequence[str]:
            return await registry.some_names(MAX_NAMES)

        self._cached = CachedRead(read)

    async def get(self) -> Sequence[str]:
        """Return the names. Raises RedisUnavailable."""
        return await self._cached.get()


def most_similar(wrong: str, names: Iterable[str], is_allowed: Callable[[str], bool]) -> str | None:
    """Return the allowed name that is most similar to `wrong`, or None if none is similar.

    The work is bounded, because only a few names are compared in full. They have about the same
    length as `wrong`, and the same first or last character, regardless of case.
    """
    if not 0 < len(wrong) <= MAX_CHARS:
        return None
    folded = wrong.casefold()
    alike = islice((name for name in names if _may_be_similar(folded, name)), MAX_CHECKED)
    compared = islice(filter(is_allowed, alike), MAX_COMPARED)
    matcher = SequenceMatcher(b=folded, autojunk=False)
    best, best_ratio = None, MIN_SIMILARITY
    for name in compared:
        matcher.set_seq1(name.casefold())
        if matcher.ratio() >= best_ratio:
            best, best_ratio = name, matcher.ratio()
    return best


def _may_be_similar(wrong: str, other: str) -> bool:
    name = other.casefold()
    return abs(len(wrong) - len(name)) <= MAX_LENGTH_DIFFERENCE and (
        wrong[:1] == name[:1] or wrong[-1:] == name[-1:]
    )
