"""Interface of answer formats. `openai_chunks.py` and `embeddings.py` contain the formats.

These answers are lists of choices or embeddings. `api/responses/` and `api/messages/` render the
other answers.
"""

from abc import ABC, abstractmethod
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
        """Return the choice object of a finished choice, for a response that isn't streamed."""

    def opening(self, num_choices: int) -> list[dict[str, Any]]:
        """Return the choice objects that start a stream. Each is sent in its own chunk."""
        return []

    @abstractmethod
    def delta(self, delta: Delta) -> list[dict[str, Any]]:
        """Return zero or more choice objects for `delta`. Each is sent in its own chunk."""
