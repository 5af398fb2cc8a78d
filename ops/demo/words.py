"""Names, cities and goods for examples. Held-out entries appear in no training example."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ops.demo.data import lists

_IRREGULAR = {"knife": "knives", "shelf": "shelves", "scarf": "scarves", "mouse": "mice"}


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
    """Words that examples are made of."""

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

# Lists would have a line for each syllable.
_ONSETS = "b br c ch d dr f fl g gr h j k kl l m n p pr r s sh st t tr v w y z".split()  # noqa: SIM905
_VOWELS = "a a e e i i o o u ai ei ou ia ö é".split()  # noqa: SIM905
_ENDINGS = ("", "", "", *"n r s th ck lo sky ez ton vić mann ura stad berg".split())  # noqa: SIM905


def made_up(rng: random.Random) -> str:
    """Return a made-up, capitalised word. It is never a held-out word."""
    syllables = (rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.randint(1, 3)))
    word = "".join(syllables) + rng.choice(_ENDINGS)
    return made_up(rng) if word in HELD_OUT_PARTS else word.capitalize()
