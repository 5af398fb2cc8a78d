"""Finds earlier occurrences of a text's last tokens. Pure."""

from collections.abc import Iterable

SIZES = (3, 2, 1)
"""Lengths of the n-grams that are compared, longest first."""


class NgramIndex:
    """Maps each n-gram of a growing text to the position after its latest occurrence.

    An n-gram is entered once a token follows it, so the end of the text finds only earlier
    occurrences. Adding a token takes constant time.
    """

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._after: dict[int, dict[tuple[int, ...], int]] = {size: {} for size in SIZES}

    def __len__(self) -> int:
        """Return the number of tokens of the text."""
        return len(self._tokens)

    def extend(self, token_ids: Iterable[int]) -> None:
        """Append tokens to the text."""
        num_before = len(self._tokens)
        self._tokens += token_ids
        for size, after in self._after.items():
            first = max(size, num_before)
            window = self._tokens[first - size : -1]
            grams = zip(*(window[offset:] for offset in range(size)), strict=False)
            after.update(zip(grams, range(first, len(self._tokens)), strict=False))

    def find(self) -> tuple[int, int] | None:
        """Find the latest earlier occurrence of the text's end.

        Returns:
            (size, position): the length of the longest n-gram that occurs earlier, and the position
            of the token after its occurrence. None if no n-gram does.
        """
        for size, after in self._after.items():
            position = after.get(tuple(self._tokens[-size:]))
            if position is not None:
                return size, position
        return None

    def copy(self, position: int, num_tokens: int) -> list[int]:
        """Return `num_tokens` tokens from `position` on.

        If the text ends before, the copied tokens continue it. So the copy of a text that repeats
        itself goes on with its period.
        """
        copied = self._tokens[position : position + num_tokens]
        period = len(copied)
        while len(copied) < num_tokens:
            copied.append(copied[-period])
        return copied
