"""Parameters of jobs for scores."""

from dataclasses import dataclass
from enum import StrEnum


class ScoreKind(StrEnum):
    """Kind of score: what it states about a prompt."""

    RELEVANCE = "relevance"
    """Probability that a document is relevant to a query. A chat asks the model whether the
    document is relevant, and the log-probabilities of the answers yes and no are computed."""
    LABELS = "labels"
    """Log-probabilities of listed tokens after the prompt."""
    LIKELIHOOD = "likelihood"
    """Log-likelihood of a text that follows another text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringParams:
    """How each prompt of a job forms a pair with a first text, and how the pair is scored."""

    kind: ScoreKind
    fields: tuple[str, str]
    """Names of two request fields, for errors: the field with the first texts, and the field with
    the job's prompts."""
    firsts: tuple[str | tuple[int, ...], ...]
    """First text of each pair, such as a query, or a single first text for all pairs. If the job's
    prompts are token ids, so are the first texts."""
    is_reversed: bool = False
    """Labels only: whether the prompt comes before the first text."""
    label_ids: tuple[int, ...] = ()
    """Labels only: tokens whose log-probabilities are computed."""
    instruction: str = ""
    """Relevance only: what the document must do for the query."""
    max_document_tokens: int | None = None
    """Relevance only: number of tokens to keep of each document, from its start; None keeps all."""

    def first(self, index: int) -> str | tuple[int, ...]:
        """Return the first text of pair `index`."""
        return self.firsts[index % len(self.firsts)]
