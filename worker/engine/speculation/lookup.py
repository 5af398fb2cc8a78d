"""Proposes tokens of an answer by prompt lookup. Pure.

Answers often repeat their prompt or themselves. The tokens that followed the latest occurrence of
the last few tokens are therefore a good guess (Saxena: Prompt Lookup Decoding, 2023,
https://github.com/apoorvumang/prompt-lookup-decoding).
"""

from collections.abc import Iterable

from worker.engine.speculation.policy import Acceptance

SIZES = (3, 2, 1)
"""Lengths of the n-grams that are compared, longest first."""


class PromptLookup:
    """Proposes the next tokens of one answer from its prompt and its tokens so far."""

    def __init__(self) -> None:
        self._index = NgramIndex()
        self._acceptances = {size: Acceptance() for size in SIZES}
        self._size = SIZES[0]
        """Number of tokens of the n-gram that the latest proposal continues."""

    @property
    def num_tokens(self) -> int:
        """Number of tokens of the prompt and the answer that have been appended so far."""
        return len(self._index)

    @property
    def rate(self) -> float:
        """Estimated probability that a token of the latest proposal is accepted."""
        return self._acceptances[self._size].rate

    def extend(self, token_ids: Iterable[int]) -> None:
        """Append tokens of the prompt or the answer."""
        self._index.extend(token_ids)

    def propose(self, num_tokens: int) -> list[int]:
        """Return `num_tokens` proposed tokens, or an empty list if there is no good guess."""
        found = self._index.find() if num_tokens > 0 else None
        if found is None:
            return []
        self._size, position = found
        if not self._acceptances[self._size].may_draft():
            return []
        return self._index.copy(position, num_tokens)

    def record(self, num_drafted: int, num_accepted: int) -> None:
        """Record how many of the first `num_drafted` tokens of the latest proposal were right."""
        self._acceptances[self._size].record(num_drafted, num_accepted)


class NgramIndex:
    """Maps each n-gram of a growing text to the position after its latest occurrence.

    An n-gram is entered once a token follows it, so a lookup of the text's end finds only earlier
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
            (size, position): the length of the longest n-gram at the text's end that also occurs
            earlier, and the position of the token after its latest earlier occurrence. None if
            no such n-gram occurs earlier.
        """
        for size, after in self._after.items():
            position = after.get(tuple(self._tokens[-size:]))
            if position is not None:
                return size, position
        return None

    def copy(self, position: int, num_tokens: int) -> list[int]:
        """Return `num_tokens` tokens from `position` on.

        If the text ends too early, the copy continues with its own first tokens. Therefore a text
        that repeats itself is continued with the same period.
        """
        copied = self._tokens[position : position + num_tokens]
        period = len(copied)
        while len(copied) < num_tokens:
            copied.append(copied[-period])
        return copied
