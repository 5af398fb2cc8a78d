"""Base class of the answer formats in `openai_chunks.py` and `embeddings.py`.

Responses and messages don't consist of choices: `api/responses/` and `api/messages/` render them.
"""

from abc import ABC, abstractmethod
from typing import Any

from api.follow.transcript import ChoiceTranscript, Delta


class Format(ABC):
    """Answer format of one endpoint."""

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
