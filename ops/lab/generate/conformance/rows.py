"""Types of the table of request fields.

A row is one field. A route has the rows of its fields, and parts, which group rows of one field.
"""

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
    """Set of APIs that have a field. The set is empty if only Lorikeet has the field."""

    OPENAI = 1
    VLLM = 2
    LMDEPLOY = 4
    ANTHROPIC = 8
    OLLAMA = 16
    SGLANG = 32


OPENAI, VLLM, LMDEPLOY, ANTHROPIC, OLLAMA, SGLANG = Api
UNKNOWN_MODEL = "nobody"
"""A name that no model has. A request for it is answered with status 404."""
STORED_RESPONSE = "resp_stored"
"""Placeholder for the id of a response that the server has stored for the client."""


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
    """Value of the field in a second request, whose response is compared. None omits the field."""
    is_shown_elsewhere: bool = False
    """Whether another test shows the field's effect.

    This is so if the effect needs an adapter with a canary, or a filled cache.
    """


@dataclass(frozen=True, slots=True)
class Part:
    """Rows for the parts of one field, for example of `messages`.

    The name of a row is the part's name. The value of a row is the value of the whole field.
    """

    title: str
    field: str
    """Name of the field to which the parts belong."""
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
