"""Interface of answer formats. `openai_chunks.py`, `embeddings.py` and `scores.py` contain them.

Answers in these formats are lists of choices, embeddings or scores. `api/responses/` and
`api/messages/` render the other answers.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from api.follow.transcript import ChoiceTranscript, Delta


class Format(ABC):
    """Interface of the answer format of one endpoint. Subclasses render its choices."""

    id: str
    object: str
    chunk_object: str
    choices_field = "choices"
    """Field of a complete body that lists the choices."""

    @abstractmethod
    def choice(self, index: int, choice: ChoiceTranscript) -> dict[str, Any]:
        """Return the choice object of a finished choice, for a response that isn't a stream."""

    def all_choices(self, choices: Sequence[ChoiceTranscript]) -> list[Any]:
        """Return the list for a complete body: by default, the choice object of each choice."""
        return [self.choice(index, choice) for index, choice in enumerate(choices)]

    def opening(self, num_choices: int) -> list[dict[str, Any]]:
        """Return the choice objects that start a stream. Each object is sent in its own chunk."""
        return []

    @abstractmethod
    def delta(self, delta: Delta) -> list[dict[str, Any]]:
        """Return zero or more choice objects for `delta`. Each object is sent in its own chunk."""
