"""What an adapter of the demo learns: its examples, and how its answers are judged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
LINEARS = (*ATTENTION, "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Example:
    """One user message and the answer wanted; no system message, so the template adds its own."""

    prompt: str
    answer: str


class Teacher(Protocol):
    """What the base model brings to its own training."""

    @property
    def words(self) -> Sequence[str]:
        """What its tokenizer has as one token behind a space, and spells anywhere else."""

    def ask(self, prompts: Sequence[str]) -> list[str]:
        """The base model's greedy answers, in the order of their prompts."""


@dataclass(frozen=True, slots=True)
class Task:
    """One adapter: where its examples come from, and the size of its training."""

    name: str
    training: Callable[[Teacher], list[Example]]
    held_out: Callable[[], list[Example]]
    """Examples whose every part is absent from training."""
    is_right: Callable[[Example, str], bool]
    """Whether an answer is right, the end of text removed."""
    max_tokens: int
    """No right answer is longer."""
    rank: int
    target_modules: tuple[str, ...]
    learning_rate: float
    epochs: int
    quotes_words: bool = False
    """Whether the adapter's chat template shows a message again with quotes for spaces.

    Behind a quote most words are other tokens than behind a space. Who has seen both copies only.
    """
