"""Rule that adapter names must follow."""

import re

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$"
NAME_RULE = "letters, digits and . _ / -, at most 128, a letter or digit first, no '..'"

_NAME = re.compile(NAME_PATTERN)


def is_valid_name(name: str) -> bool:
    """Return whether `name` is a valid adapter name. Names appear in URLs and Redis keys."""
    return _NAME.fullmatch(name) is not None and ".." not in name
