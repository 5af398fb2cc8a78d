"""Decodes the fields that this release knows, of messages that another release may have written."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

Forms = dict[str, Callable[[Any], Any]]
"""Functions that decode single fields from JSON values, by field name."""


def known_fields(
    cls: type[Any], wire: Mapping[str, Any], **forms: Callable[[Any], Any]
) -> dict[str, Any]:
    """Return the values in `wire` of the fields that `cls` has in this release.

    Other fields, which later releases have added, are left out, and so are those that are None.
    `forms` has a function for each field whose value must be decoded, by field name.
    """
    known = {f.name: wire[f.name] for f in fields(cls) if wire.get(f.name) is not None}
    return {name: forms[name](value) if name in forms else value for name, value in known.items()}
