"""Lengths of prompts and answers: one for all, or drawn from a range."""

import re
from dataclasses import dataclass
from random import Random

from shared.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Length:
    """Any of the numbers from `low` to `high`, both included, each as likely."""

    low: int
    high: int

    def draw(self, seed: str) -> int:
        """One of them, the same for the same seed."""
        return Random(seed).randint(self.low, self.high)


def fixed(number: int) -> Length:
    """The same for all."""
    return Length(number, number)


def parse_length(flag: str, text: str) -> Length:
    """Read `128` or `64-256`, as `flag` was given.

    Raises:
        SettingsError: it is neither, or no positive number.
    """
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= low <= high:
        raise SettingsError(
            f"{flag} {text} is no length: give one like 128, or a range like 64-256"
        )
    return Length(low, high)
