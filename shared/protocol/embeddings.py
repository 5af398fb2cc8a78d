"""Parameters of jobs for embeddings."""

from dataclasses import dataclass
from enum import StrEnum


class Pooling(StrEnum):
    """Choice of the hidden states that make up the embedding of a prompt."""

    LAST = "last"
    """The hidden state of the last token. It depends on all tokens of the prompt."""
    MEAN = "mean"
    """The mean of the hidden states of all tokens."""
    FIRST = "first"
    """The hidden state of the first token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingParams:
    """How an embedding is computed from the hidden states after the model's final norm."""

    pooling: Pooling = Pooling.LAST
    normalize: bool = True
    """Whether embeddings are scaled to length 1."""

    def positions(self, num_tokens: int) -> range:
        """Return the positions whose hidden states are averaged, for `num_tokens` tokens."""
        match self.pooling:
            case Pooling.LAST:
                return range(num_tokens - 1, num_tokens)
            case Pooling.MEAN:
                return range(num_tokens)
            case Pooling.FIRST:
                return range(1)
