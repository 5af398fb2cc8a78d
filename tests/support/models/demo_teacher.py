"""Replaces the base model that generates the demo's training data."""

from collections.abc import Sequence


class ScriptedTeacher:
    """Answers every prompt with the same text; `words` include some that are held out."""

    words = ("Geneva", "Quito", "Uganda", "lamps", "mirrors", "parcels", "green", "tall", "wide")

    def ask(self, prompts: Sequence[str]) -> list[str]:
        return ["The sea is deep and you are swimming. It is wide."] * len(prompts)
