"""Validates the fields of a JSON body and names the first invalid field. Pure."""

import json
import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from shared.errors import ErrorCode, JobError, JobFailed, invalid_value

M = TypeVar("M", bound=BaseModel)
MAX_FIELDS = 1000
"""Maximum number of fields of a body or a query.

pydantic reports every unknown field of a model that forbids them. Other errors of a body are few,
because the validation of a list stops at its first invalid item.
"""
MAX_SHOWN_CHARS = 60
MAX_PATH_CHARS = 200
_SUBJECT = re.compile(r"^\w+ should\b")
"""Start of many of pydantic's error messages, as in "Input should be a valid integer".

In error messages for clients, "must" replaces this start.
"""
_MESSAGES_FIELD = "messages"
"""Name of the field that lists the messages of a conversation.

The `role` of a message determines the class, for example `UserMessage`, that validates it.
"""


def validate(model: type[M], raw: Mapping[str, Any]) -> M:
    """Validate `raw` and return it as an instance of `model`.

    Raises:
        JobFailed: there are too many fields, or a field is missing, of the wrong type, out of
            range, or unknown to a model that forbids other fields. The error names the first
            invalid field.
    """
    if len(raw) > MAX_FIELDS:
        message = f"there are {len(raw)} fields; send at most {MAX_FIELDS}"
        raise invalid_value(message)
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        raise JobFailed(_as_job_error(detail, model.model_fields)) from None


def unknown_field_error(name: str, known: Collection[str], *, prefix: str = "") -> JobError:
    """Return the error of an unknown field. It suggests the most similar of the `known` names.

    `prefix` is the path of the object that has the field, for example `messages[0].`. The error has
    at most `MAX_PATH_CHARS` characters of the path, because the client chose the name.
    """
    param = _cut(prefix + name)
    close = get_close_matches(name[:MAX_PATH_CHARS], known, n=1)
    hint = "leave it out; GET /docs lists the fields"
    if close:
        hint = f"did you mean {prefix}{close[0]}?"
    message = f"unknown field: {param}; {hint}"
    return JobError(code=ErrorCode.UNKNOWN_PARAMETER, message=message, param=param)


def _as_job_error(detail: ErrorDetails, fields: Collection[str]) -> JobError:
    param = _cut(_dotted(_path(detail)))
    if detail["type"] == "extra_forbidden":
        return unknown_field_error(param, () if len(detail["loc"]) > 1 else fields)
    is_unsupported = detail["type"] == ErrorCode.UNSUPPORTED_PARAMETER
    code = ErrorCode.UNSUPPORTED_PARAMETER if is_unsupported else ErrorCode.INVALID_VALUE
    return JobError(code=code, message=f"{param}: {_reason(detail)}", param=param)


def _reason(detail: ErrorDetails) -> str:
    if detail["type"] == "missing":
        return "is required"
    if detail["type"] == ErrorCode.UNSUPPORTED_PARAMETER:
        return detail["msg"]
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    reason = _SUBJECT.sub("must", detail["msg"]).replace(" after validation", "")
    if isinstance(detail["input"], str | int | float | None):
        return f"{reason}, not {_shortened(detail['input'])}"
    return reason


def _shortened(value: str | float | None) -> str:
    start = value[: MAX_SHOWN_CHARS + 1] if isinstance(value, str) else value
    text = json.dumps(start, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "..."


def _path(detail: ErrorDetails) -> tuple[int | str, ...]:
    """Return the path of the invalid field, without the role that pydantic adds for a message."""
    loc = detail["loc"]
    return loc[:2] + loc[3:] if loc[0] == _MESSAGES_FIELD else loc


def _cut(path: str) -> str:
    """Shorten a path, because clients may choose long names."""
    return path if len(path) <= MAX_PATH_CHARS else path[:MAX_PATH_CHARS] + "..."


def _dotted(loc: tuple[int | str, ...]) -> str:
    """Format a path, for example `("messages", 0, "role")` as `messages[0].role`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.removeprefix(".")
