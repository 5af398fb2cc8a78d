"""Tasks of the demo's adapters: their examples, and how answers are judged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
LINEARS = (*ATTENTION, "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Example:
    """A user message and its expected answer; the template adds its own system message."""

    prompt: str
    answer: str


def is_exact(example: Example, answer: str) -> bool:
    """Return whether an answer equals the expected one, to the character."""
    return answer == example.answer


class Teacher(Protocol):
    """The base model, as a source of training data."""

    @property
    def words(self) -> Sequence[str]:
        """Words that are one token after a space and several tokens elsewhere."""

    def ask(self, prompts: Sequence[str]) -> list[str]:
        """Return the base model's greedy answers, in the order of the prompts."""


@dataclass(frozen=True, slots=True)
class Task:
    """An adapter's examples, judge and training settings."""

    name: str
    training: Callable[[Teacher], list[Example]]
    held_out: Callable[[], list[Example]]
    """Returns examples whose parts are all absent from training."""
    is_right: Callable[[Example, str], bool]
    """Judges an answer without its end-of-text token."""
    max_tokens: int
    """Token limit of an answer, large enough for every right answer."""
    rank: int
    target_modules: tuple[str, ...]
    learning_rate: float
    epochs: int
    quotes_words: bool = False
    """Whether the adapter's chat template repeats a message with quotes for spaces.

    Most words are other tokens after a quote than after a space. A model that sees both forms only
    has to copy.
    """
