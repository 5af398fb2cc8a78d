"""Names, cities and goods for examples. Held-out entries appear in no training example."""

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
