"""Generates quantities in the forms that people write."""

import random
from dataclasses import dataclass

_UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_DOZENS = ("two", "three", "four", "five", "six")
_ROUND = {
    "a dozen": 12, "half a dozen": 6, "one dozen": 12,
    **{f"{word} dozen": 12 * _UNITS.index(word) for word in _DOZENS},
    "a hundred": 100, "one hundred": 100, "two hundred": 200, "three hundred": 300,
    "five hundred": 500, "a thousand": 1000, "two thousand": 2000,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Count:
    """A quantity, as a number and as text."""

    value: int
    text: str


def count(rng: random.Random) -> Count:
    """Return a random quantity. Most quantities are written in digits."""
    chance = rng.random()
    if chance < 0.08:
        return Count(1, rng.choice(("one", "1", "a", "a single", "just one")))
    if chance < 0.26:
        value = rng.randint(2, rng.choice((9, 20, 99)))
        return Count(value, in_words(value))
    if chance < 0.38:
        text, value = rng.choice(list(_ROUND.items()))
        return Count(value, text)
    value = rng.randint(2, rng.choice((9, 99, 99, 999, 9999)))
    text = f"{value:,}" if rng.random() < 0.5 else str(value)
    forms = ("{}",) * 8 + ("{} x", "{}x", "another {}", "{} more")
    return Count(value, rng.choice(forms).format(text))


def in_words(value: int) -> str:
    """Return a number below 100 in words."""
    if value < len(_UNITS):
        return _UNITS[value]
    tens, units = divmod(value, 10)
    ten = _TENS[tens - 2]
    return f"{ten}-{_UNITS[units]}" if units else ten
