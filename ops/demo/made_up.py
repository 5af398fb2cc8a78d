"""Generates made-up words."""

import random

from ops.demo.words import HELD_OUT_PARTS

# Lists would have a line for each syllable.
_ONSETS = "b br c ch d dr f fl g gr h j k kl l m n p pr r s sh st t tr v w y z".split()  # noqa: SIM905
_VOWELS = "a a e e i i o o u ai ei ou ia ö é".split()  # noqa: SIM905
_ENDINGS = ("", "", "", *"n r s th ck lo sky ez ton vić mann ura stad berg".split())  # noqa: SIM905


def made_up(rng: random.Random) -> str:
    """Return a made-up, capitalised word. It is never a held-out word."""
    syllables = (rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.randint(1, 3)))
    word = "".join(syllables) + rng.choice(_ENDINGS)
    return made_up(rng) if word in HELD_OUT_PARTS else word.capitalize()
