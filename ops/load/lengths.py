"""Lengths of prompts and answers: fixed, or sampled from a range."""

import re
from dataclasses import dataclass
from random import Random

from shared.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Length:
    """Uniform distribution over the integers from `low` to `high`, both included."""

    low: int
    high: int

    def sample(self, seed: str) -> int:
        """Return a sample. Equal seeds give equal samples."""
        return Random(seed).randint(self.low, self.high)


def fixed(number: int) -> Length:
    """Return a distribution whose samples all equal `number`."""
    return Length(number, number)


def parse_length(flag: str, text: str) -> Length:
    """Parse the value of `flag`: a number such as `128`, or a range such as `64-256`.

    Raises:
        SettingsError: `text` has a different form, allows a length of 0, or is a descending range.
    """
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= low <= high:
        raise SettingsError(
            f"{flag} {text} is no length: give a number like 128, or a range like 64-256"
        )
    return Length(low, high)
