"""Proposes tokens of an answer by prompt lookup. Pure.

Answers often repeat their prompt or themselves. The tokens that followed the latest occurrence of
the last few tokens are therefore a good guess (Saxena: Prompt Lookup Decoding, 2023,
https://github.com/apoorvumang/prompt-lookup-decoding).
"""

from collections.abc import Iterable

from worker.engine.speculation.ngrams import SIZES, NgramIndex
from worker.engine.speculation.policy import Acceptance


class PromptLookup:
    """Proposes the next tokens of one answer from its prompt and its tokens so far."""

    def __init__(self) -> None:
        self._index = NgramIndex()
        self._acceptances = {size: Acceptance() for size in SIZES}
        self._size = SIZES[0]
        """Size of the n-gram that the latest proposal follows."""

    @property
    def num_tokens(self) -> int:
        """Number of tokens of the prompt and the answer that are known."""
        return len(self._index)

    @property
    def rate(self) -> float:
        """Estimated probability that a token of the latest proposal is accepted."""
        return self._acceptances[self._size].rate

    def extend(self, token_ids: Iterable[int]) -> None:
        """Append tokens of the prompt or the answer."""
        self._index.extend(token_ids)

    def propose(self, num_tokens: int) -> list[int]:
        """Return `num_tokens` proposed tokens, or none if there is no good guess."""
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
