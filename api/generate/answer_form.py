"""The parts of a request to /generate that determine the form of its answer. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerForm:
    """Form of an answer. `Job.request` stores it."""

    rid: str | None = None
    """Name that the client gave the request; None if it gave none."""
    is_list: bool = False
    """Whether the body is a list, because the request has a list of prompts or several answers."""
    start: int | None = None
    """Position of the first prompt token whose log-probability the answer reports; None if it
    reports none of the prompt's tokens."""
    num_top: int = 0
    """Number of most likely tokens that the answer reports at each position."""
    listed: tuple[int, ...] = ()
    """Tokens whose log-probabilities are reported at each position of the answer."""
    has_texts: bool = False
    """Whether each reported log-probability includes the text of its token."""
    has_prompt_ids: bool = False
    """Whether the answer has the token ids of its prompt."""
    interval: int = 1
    """Minimum number of new tokens in an event of a stream."""


def wire_of(form: AnswerForm) -> dict[str, Any]:
    """Return the form as JSON values. Only values other than the defaults are included."""
    default = AnswerForm()
    values = asdict(form).items()
    return {name: value for name, value in values if value != getattr(default, name)}


def form_of(wire: Mapping[str, Any] | None) -> AnswerForm:
    """Return the form that `wire_of` has encoded. Unknown values are dropped."""
    names = {field.name for field in fields(AnswerForm)}
    known: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in (wire or {}).items()
        if name in names
    }
    return AnswerForm(**known)
