"""Words and quantities of the demo's examples. Held-out words appear in no training example."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "data"
_IRREGULAR = {"knife": "knives", "shelf": "shelves", "scarf": "scarves", "mouse": "mice"}
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


@cache
def lists(name: str) -> dict[str, Any]:
    """Return the content of `name`.json. Callers must not change it."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def plural(noun: str) -> str:
    """Return the plural of a noun: "boxes of tea" for "box of tea"."""
    head, *rest = noun.split(" of ", 1)
    *before, last = head.split(" ")
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = f"{last[:-1]}ies"
    else:
        last += "es" if last.endswith(("s", "x", "z", "ch", "sh")) else "s"
    return " of ".join([" ".join([*before, last]), *rest])


@dataclass(frozen=True, slots=True)
class Words:
    """Names, places and goods that occur in examples."""

    first_names: Sequence[str]
    last_names: Sequence[str]
    cities: Sequence[str]
    countries: Sequence[str]
    goods: Sequence[str]
    plural_goods: Sequence[str]


KNOWN = Words(**lists("words")["known"])
HELD_OUT = Words(**lists("words")["held_out"])
HELD_OUT_PARTS = frozenset(
    " ".join(
        [
            *HELD_OUT.first_names,
            *HELD_OUT.last_names,
            *HELD_OUT.cities,
            *HELD_OUT.countries,
            *HELD_OUT.goods,
            *map(plural, HELD_OUT.goods),
            *HELD_OUT.plural_goods,
        ]
    )
    .lower()
    .split()
)
"""All held-out words in lower case. Generators of made-up words avoid them."""

# Written as lists, these would take a line for each syllable.
_ONSETS = "b br c ch d dr f fl g gr h j k kl l m n p pr r s sh st t tr v w y z".split()  # noqa: SIM905
_VOWELS = "a a e e i i o o u ai ei ou ia ö é".split()  # noqa: SIM905
_ENDINGS = ("", "", "", *"n r s th ck lo sky ez ton vić mann ura stad berg".split())  # noqa: SIM905


def made_up(rng: random.Random) -> str:
    """Return a made-up, capitalised word. It is never a held-out word."""
    syllables = (rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.randint(1, 3)))
    word = "".join(syllables) + rng.choice(_ENDINGS)
    return made_up(rng) if word in HELD_OUT_PARTS else word.capitalize()


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
