"""Parameters of embeddings."""

from dataclasses import dataclass
from enum import StrEnum


class Pooling(StrEnum):
    """Hidden states of a prompt's tokens that make up its embedding."""

    LAST = "last"
    """The last token's, which depends on all tokens of the prompt."""
    MEAN = "mean"
    """The mean over all tokens."""
    FIRST = "first"
    """The first token's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingParams:
    """How the hidden states after the model's final norm become an embedding."""

    pooling: Pooling = Pooling.LAST
    normalize: bool = True
    """Whether embeddings are scaled to length 1."""

    def positions(self, num_tokens: int) -> range:
        """Return the positions whose hidden states are averaged, for a prompt of `num_tokens`."""
        match self.pooling:
            case Pooling.LAST:
                return range(num_tokens - 1, num_tokens)
            case Pooling.MEAN:
                return range(num_tokens)
            case Pooling.FIRST:
                return range(1)
