"""Stands for the base model where the demo's training data are drawn."""

from collections.abc import Sequence


class ScriptedTeacher:
    """Knows a few words, among them some that are held out."""

    words = ("Geneva", "Quito", "Uganda", "lamps", "mirrors", "parcels", "green", "tall", "wide")

    def ask(self, prompts: Sequence[str]) -> list[str]:
        """One answer to everything."""
        return ["The sea is deep and you are swimming. It is wide."] * len(prompts)
