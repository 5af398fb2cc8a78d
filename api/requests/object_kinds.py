"""Checks objects in requests to /v1/messages and /v1/responses, and finds their unknown fields.

No pydantic classes validate the messages, content blocks, input items and tools of these APIs.
`api/messages/known_fields.py` and `api/responses/known_fields.py` list their kinds. Pure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from api.requests.unknown_fields import UnknownField
from shared.errors import ErrorCode, failed


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectKind:
    """One kind of object in a request, with the fields that such an object may have."""

    fields: tuple[str, ...]
    """Fields that have an effect, or that clients only send back as they received them."""
    unused: tuple[str, ...] = ()
    """Fields that have an effect in the original API, but no effect in Lorikeet."""
    parts: Mapping[str, "Kinds"] = field(default_factory=dict)
    """Kinds of the objects in some fields, by field name. The other fields are free-form."""

    @property
    def known(self) -> tuple[str, ...]:
        """Names of all known fields."""
        return (*self.fields, *self.unused)


Kinds = Mapping[str | None, ObjectKind]
"""Maps each value of the field `type` to the kind of the object. The key None stands for all other
types."""


def unknown_in(value: Any, path: str, kinds: Kinds) -> Iterator[UnknownField]:
    """Yield the unknown fields of the object or the list of objects at `path`, at any depth.

    Objects of kinds that aren't in `kinds` have no unknown fields.
    """
    for prefix, kind, found in _objects(value, path, kinds):
        known = kind.known
        yield from (UnknownField(prefix, name, known) for name in found if name not in known)


def unused_in(value: Any, path: str, kinds: Kinds) -> Iterator[str]:
    """Yield the paths of unused fields in the object or list of objects at `path`, at any depth.

    The kind of an object lists its unused fields. Empty fields are left out.
    """
    for prefix, kind, found in _objects(value, path, kinds):
        yield from (prefix + name for name in kind.unused if found.get(name))


def _objects(
    value: Any, path: str, kinds: Kinds
) -> Iterator[tuple[str, ObjectKind, Mapping[str, Any]]]:
    """Yield a tuple for each object at `path`, and for each object inside such an object.

    Each tuple has a prefix, the object's kind, and the object. The prefix, such as `messages[0].`,
    and a field's name form the path of the field. An object of an unknown kind is skipped, together
    with the objects inside.
    """
    if isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, dict):
                yield from _objects(item, f"{path}[{index}]", kinds)
    elif isinstance(value, dict):
        given = value.get("type")
        # The key None has the kind of objects without a type or with any other type.
        kind = kinds.get(given if isinstance(given, str) else None) or kinds.get(None)
        if kind:
            yield f"{path}.", kind, value
            for name, parts in kind.parts.items():
                yield from _objects(value.get(name), f"{path}.{name}", parts)


def string_of(part: Mapping[str, Any], name: str, path: str) -> str:
    """Return the string in the field `name` of the part at `path`.

    Raises:
        JobFailed: the field is missing or not a string. The error names the field.
    """
    value = part.get(name)
    if not isinstance(value, str):
        refuse(f"{path}.{name}", "must be a string")
    return value


def refuse(path: str, reason: str, code: ErrorCode = ErrorCode.INVALID_VALUE) -> NoReturn:
    """Refuse the request because of the field at `path`.

    Raises:
        JobFailed: always.
    """
    raise failed(code, f"{path}: {reason}", path)
