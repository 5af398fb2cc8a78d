"""Reads the query of the audit log. Pure."""

import re
from collections.abc import Mapping

from api.http.lists import check_known, limit, read_limit
from api.http.parameters import Parameters, query
from shared.errors import invalid_value

DEFAULT_LIMIT, MAX_LIMIT = 50, 500
_ID = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")
_MAX_PART = 2**64 - 1
"""Largest number in an id of Redis' streams."""


def read_change_query(given: Mapping[str, str]) -> tuple[int, str | None, str | None]:
    """Return the limit, the id of the last change of the page before, and the adapter's name.

    Raises:
        JobFailed: a parameter is unknown or invalid.
    """
    check_known(given, ("limit", "after", "adapter"))
    after = given.get("after")
    if after is not None and not _is_id(after):
        raise invalid_value("after: must be the `last_id` of a page", "after")
    most = read_limit(given.get("limit"), default=DEFAULT_LIMIT, most=MAX_LIMIT)
    return most, after, given.get("adapter")


def _is_id(text: str) -> bool:
    """Return whether `text` can be the id of a change. No change has the smallest one, 0-0."""
    found = _ID.fullmatch(text)
    parts = [int(part) for part in found.groups()] if found else [0]
    return any(parts) and max(parts) <= _MAX_PART


CHANGE_PARAMETERS: Parameters = [
    limit("changes", default=DEFAULT_LIMIT, most=MAX_LIMIT),
    query("after", "last_id of the previous page.", {"type": "string"}),
    query("adapter", "Name of the adapter whose changes are wanted.", {"type": "string"}),
]
"""The query in the OpenAPI document."""
