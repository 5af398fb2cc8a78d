"""Finds the fields of a request that no endpoint knows. Pure.

Such fields are accepted and listed in a header. Clients that prefer strict handling get an error.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel

from api.http.validation import unknown_field_error
from shared.errors import JobFailed


class UnknownField(NamedTuple):
    """Field of an object that isn't one of the object's known fields."""

    prefix: str
    """Path of the object, for example `messages[0].`. Empty for the body itself."""
    name: str
    known: tuple[str, ...]
    """Names of the object's known fields."""

    @property
    def path(self) -> str:
        """Path of the field in the body, for example `messages[0].colour`."""
        return self.prefix + self.name


def unknown_fields(request: BaseModel, prefix: str = "") -> Iterator[UnknownField]:
    """Yield the unknown fields of a request at any depth. Fields of outer objects come first.

    Free-form objects, such as JSON Schemas and `metadata`, have no unknown fields.
    """
    known = field_names(type(request))
    for name in request.model_extra or ():
        yield UnknownField(prefix, name, known)
    for attribute, name in _parts(type(request)):
        yield from _inside(getattr(request, attribute), prefix + name)


@cache
def field_names(model: type[BaseModel]) -> tuple[str, ...]:
    """Return the names that clients use for the fields of `model`."""
    return tuple(field.alias or name for name, field in model.model_fields.items())


def refuse_unknown(fields: Iterable[UnknownField]) -> None:
    """Check that there are no unknown fields.

    Raises:
        JobFailed: there are some. The error names the first one and a similar known field.
    """
    for unknown in fields:
        raise JobFailed(unknown_field_error(unknown.name, unknown.known, prefix=unknown.prefix))


@cache
def _parts(model: type[BaseModel]) -> tuple[tuple[str, str], ...]:
    """Return the fields of `model` that can contain other pydantic models.

    Each field is returned as the name of its attribute and the name that clients use.
    """
    return tuple(
        (name, field.alias or name)
        for name, field in model.model_fields.items()
        if _has_model(field.annotation)
    )


def _has_model(annotation: Any) -> bool:
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return is_model or any(map(_has_model, get_args(annotation)))


def _inside(value: Any, path: str) -> Iterator[UnknownField]:
    if isinstance(value, BaseModel):
        yield from unknown_fields(value, f"{path}.")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, BaseModel):
                yield from unknown_fields(item, f"{path}[{index}].")
