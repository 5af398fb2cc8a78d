"""The rule for adapter names. The names are parts of URLs and Redis keys."""

import re

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$"
NAME_RULE = (
    "letters, digits and . _ / -, at most 128, a letter or digit first, no '..', and not "
    "/candidate, /pin, /promote or /rollback at the end"
)

RESERVED = frozenset({"candidate", "pin", "promote", "rollback"})
"""Words that a name must not end with, because they end paths such as `/v1/adapters/NAME/pin`."""

_NAME = re.compile(NAME_PATTERN)


def is_valid_name(name: str) -> bool:
    """Return whether `name` is a valid adapter name."""
    if _NAME.fullmatch(name) is None or ".." in name:
        return False
    return name.rpartition("/")[2] not in RESERVED or "/" not in name
