"""Parses the values of the --tenant-weight flag."""

import re
from collections.abc import Iterable

from shared.errors import SettingsError

MIN_WEIGHT = 0.001
"""Minimum weight. Fair queueing divides a job's tokens by the weight, so with smaller weights its
numbers would be too large to be exact."""
MAX_WEIGHT = 1000.0

_SEPARATORS = re.compile(r"[\s,]+")
_FORM = re.compile(r"([A-Za-z0-9_-]{1,64})=([0-9]+(?:\.[0-9]+)?)")


def parse_tenant_weights(texts: Iterable[str]) -> dict[str, float]:
    """Return a dict from tenants to weights. A weight is written as `name=weight`.

    Commas or white space separate the weights of one text.

    Raises:
        SettingsError: a weight has another form or isn't between `MIN_WEIGHT` and `MAX_WEIGHT`, or
            a tenant has two weights.
    """
    weights: dict[str, float] = {}
    for word in (word for text in texts for word in _SEPARATORS.split(text) if word):
        name, weight = _parse(word)
        if weights.setdefault(name, weight) != weight:
            raise SettingsError(f"--tenant-weight: the tenant {name} has two weights")
    return weights


def _parse(word: str) -> tuple[str, float]:
    form = _FORM.fullmatch(word)
    if form is None:
        raise SettingsError(
            f"--tenant-weight {word!r}: isn't NAME=WEIGHT, where NAME has only letters, digits, _ "
            "and -, and WEIGHT is a number such as 4 or 0.5"
        )
    name, weight = form[1], float(form[2])
    if not MIN_WEIGHT <= weight <= MAX_WEIGHT:
        raise SettingsError(
            f"--tenant-weight {word!r}: the weight must be from {MIN_WEIGHT} to {MAX_WEIGHT:g}"
        )
    return name, weight
