"""Constraints of answers: JSON schemas, regular expressions, choices and grammars. Pure."""

from dataclasses import dataclass
from typing import Any

from api.schema.chat import ChatCompletionRequest
from api.schema.generation import GenerationRequest
from api.schema.response_format import ANY_OBJECT
from api.schema.tools import mode_of
from shared.errors import invalid_param

_KINDS = {"json": "json_schema", "regex": "regex", "choice": "choice", "grammar": "grammar"}
"""Names of constraints in `SamplingParams`. A key is the end of the name of a request
field such as `guided_json`."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """Constraint that each answer must satisfy."""

    param: str
    """Name of the request field that sets the constraint."""
    kind: str
    """Name of the constraint's field in `SamplingParams`."""
    value: str | tuple[str, ...]

    @property
    def sampling(self) -> dict[str, Any]:
        """Keyword arguments of `SamplingParams` that set the constraint."""
        named = {} if self.param == "response_format" else {"constrained_by": self.param}
        return {self.kind: self.value, **named}


def constraint_of(request: GenerationRequest) -> Constraint | None:
    """Return the constraint of a request's answers, or None if any text is allowed.

    Raises:
        JobFailed: the request has several constraints. The error names one of them.
    """
    found = [*_response_format(request), *_structured(request), *_guided(request)]
    if len(found) > 1:
        raise invalid_param(
            found[1].param, f"can't be combined with {found[0].param}: send one of them"
        )
    return found[0] if found else None


def check_constraint(request: GenerationRequest) -> None:
    """Refuse fields that conflict with a constraint of the answers or a required tool call.

    In both cases, a grammar decides when the answer ends, so `ignore_eos` and `min_tokens` are
    refused.

    Raises:
        JobFailed: a field conflicts. The error names it.
    """
    if constraint := constraint_of(request):
        reason = "a JSON response_format" if constraint.param == "response_format" else None
        reason = reason or constraint.param
    elif isinstance(request, ChatCompletionRequest) and mode_of(request.tool_choice) == "required":
        reason = "a tool_choice that requires a call"
    else:
        return
    if request.ignore_eos:
        raise invalid_param("ignore_eos", f"can't be true with {reason}")
    if request.min_tokens:
        raise invalid_param("min_tokens", f"can't be combined with {reason}")


def _response_format(request: GenerationRequest) -> list[Constraint]:
    if request.response_format is None:
        return []
    schema = request.response_format.schema_text
    return [Constraint("response_format", "json_schema", schema)] if schema is not None else []


def _structured(request: GenerationRequest) -> list[Constraint]:
    sent = request.structured_outputs
    if sent is None:
        return []
    found = _constraints("structured_outputs.", sent.json_, sent.regex, sent.choice, sent.grammar)
    if sent.json_object:
        found.append(Constraint("structured_outputs.json_object", "json_schema", ANY_OBJECT))
    if not found:
        kinds = "json, json_object, regex, choice, grammar"
        raise invalid_param("structured_outputs", f"needs one of {kinds}")
    return found


def _guided(request: GenerationRequest) -> list[Constraint]:
    return _constraints(
        "guided_",
        request.guided_json,
        request.guided_regex,
        request.guided_choice,
        request.guided_grammar,
    )


def _constraints(prefix: str, *values: str | list[str] | None) -> list[Constraint]:
    """Return the constraints in fields whose names begin with `prefix`, ordered as in `_KINDS`."""
    return [
        Constraint(prefix + end, kind, tuple(value) if isinstance(value, list) else value)
        for (end, kind), value in zip(_KINDS.items(), values, strict=True)
        if value is not None
    ]
