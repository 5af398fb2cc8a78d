"""Markers that models put around the reasoning before an answer."""

from enum import StrEnum
from typing import Literal

ReasoningSetting = Literal["auto", "none", "think", "mistral"]
"""Values of --reasoning-parser."""


class ReasoningForm(StrEnum):
    """Form of a model's reasoning: the markers around it. The chat template defines the form."""

    THINK = "think"
    """`<think>...</think>`. Used by Qwen 3, DeepSeek R1, GLM 4.5 and others."""
    MISTRAL = "mistral"
    """`[THINK]...[/THINK]`. Used by Magistral."""

    @property
    def markers(self) -> tuple[str, str]:
        """The opening and the closing marker."""
        return _MARKERS[self]

    @property
    def opening(self) -> str:
        """Marker before the reasoning."""
        return self.markers[0]

    @property
    def closing(self) -> str:
        """Marker between the reasoning and the answer."""
        return self.markers[1]


_MARKERS = {
    ReasoningForm.THINK: ("<think>", "</think>"),
    ReasoningForm.MISTRAL: ("[THINK]", "[/THINK]"),
}
