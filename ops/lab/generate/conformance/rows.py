"""Types of the table: a route has rows and parts, and a row is one field."""

from dataclasses import dataclass, field
from enum import Flag, StrEnum
from typing import Any


class Outcome(StrEnum):
    """How Lorikeet treats a field whose value would change the response."""

    WORKS = "works"
    """The field has its effect on the response."""
    WARNED = "warned"
    """The field is accepted but has no effect. The header X-Lorikeet-Warning names the field."""
    REFUSED = "refused"
    """The request is refused with status 400. The error message names the field."""


class Api(Flag):
    """APIs that have a field. Without any of them, the field is Lorikeet's own."""

    OPENAI = 1
    VLLM = 2
    LMDEPLOY = 4
    ANTHROPIC = 8


OPENAI, VLLM, LMDEPLOY, ANTHROPIC = Api
UNKNOWN_MODEL = "nobody"
"""A name that no model has. A request for it has the status 404."""
STORED_RESPONSE = "resp_stored"
"""Stands for the id of a response that the client has asked for before."""


@dataclass(frozen=True, slots=True)
class Row:
    """One request field, with a value that would change the response if it were supported."""

    name: str
    """Path of the field, for example `stream_options.include_usage`."""
    apis: Api
    outcome: Outcome
    value: Any
    note: str = ""
    given: dict[str, Any] = field(default_factory=dict)
    """Other fields that a request with this field must contain."""
    plain: Any = None
    """Value to compare with. None leaves the field out."""
    needs_canary: bool = False
    """Whether the effect only shows in requests for an adapter that has a canary."""


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one field that has parts, for example of `messages`.

    A row's value is the value of the whole field, and its name is that of the part.
    """

    title: str
    field: str
    """The field that has the parts."""
    path: str
    """Path of the parts in errors and warnings, for example `messages[0].`."""
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """One route, with the rows of its fields."""

    path: str
    request: dict[str, Any]
    """A request to which a row's field is added. Its answer is the same each time."""
    rows: tuple[Row, ...]
    parts: tuple[Part, ...] = ()
