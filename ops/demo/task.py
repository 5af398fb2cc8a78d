"""Tasks of the demo's adapters: their examples, and how answers are judged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
LINEARS = (*ATTENTION, "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Example:
    """A user message and its expected answer. The chat template adds the system message."""

    prompt: str
    answer: str


def is_exact(example: Example, answer: str) -> bool:
    """Return whether `answer` equals the example's answer exactly."""
    return answer == example.answer


class Teacher(Protocol):
    """The base model, as a source of training data."""

    @property
    def words(self) -> Sequence[str]:
        """Words that are a single token after a space, but several tokens elsewhere."""

    def ask(self, prompts: Sequence[str]) -> list[str]:
        """Return the base model's greedy answers, in the order of the prompts."""


@dataclass(frozen=True, slots=True)
class Task:
    """An adapter's examples, its check of answers, and its training settings."""

    name: str
    training: Callable[[Teacher], list[Example]]
    held_out: Callable[[], list[Example]]
    """Function that returns examples with phrases and values that are absent from training."""
    is_right: Callable[[Example, str], bool]
    """Function that returns whether an answer is right. The answer has no end-of-text token."""
    max_tokens: int
    """Maximum number of tokens in an answer. Every right answer fits."""
    rank: int
    target_modules: tuple[str, ...]
    learning_rate: float
    epochs: int
    quotes_words: bool = False
    """Whether the adapter's chat template repeats the message with quotes in place of spaces.

    Most words are split into different tokens after a quote than after a space. A model that sees
    the message in both forms only has to copy tokens.
    """
