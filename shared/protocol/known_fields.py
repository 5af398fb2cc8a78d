"""Decodes messages that another release may have written. Drops fields that are unknown here."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

Forms = dict[str, Callable[[Any], Any]]
"""Maps the names of fields to functions that decode their JSON values."""


def known_fields(
    cls: type[Any], wire: Mapping[str, Any], **forms: Callable[[Any], Any]
) -> dict[str, Any]:
    """Return the values in `wire` of the fields that `cls` has in this release.

    Fields that are None, or that only later releases have, are left out.
    `forms` has a function for each field whose value must be decoded, by field name.
    """
    known = {f.name: wire[f.name] for f in fields(cls) if wire.get(f.name) is not None}
    return {name: forms[name](value) if name in forms else value for name, value in known.items()}
