"""Validates the fields of a JSON body and names the first invalid field. Pure."""

import json
import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from shared.errors import ErrorCode, JobError, JobFailed

M = TypeVar("M", bound=BaseModel)
MAX_SHOWN_CHARS = 60
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
        JobFailed: a field is missing, unknown, of the wrong type or out of range. The error names
            the first such field.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        raise JobFailed(_as_job_error(detail, model.model_fields)) from None


def _as_job_error(detail: ErrorDetails, fields: Collection[str]) -> JobError:
    param = _dotted(_path(detail))
    if detail["type"] == "extra_forbidden":
        is_nested = len(detail["loc"]) > 1
        close = get_close_matches(param, () if is_nested else fields, n=1)
        hint = f"did you mean {close[0]}?" if close else "leave it out; GET /docs lists the fields"
        message = f"unknown field: {param}; {hint}"
        return JobError(code=ErrorCode.UNKNOWN_PARAMETER, message=message, param=param)
    is_unsupported = detail["type"] == ErrorCode.UNSUPPORTED_PARAMETER
    code = ErrorCode.UNSUPPORTED_PARAMETER if is_unsupported else ErrorCode.INVALID_VALUE
    return JobError(code=code, message=f"{param}: {_reason(detail)}", param=param)


def _reason(detail: ErrorDetails) -> str:
    if detail["type"] in ("missing", "union_tag_not_found"):
        return "is required"
    if detail["type"] == "union_tag_invalid":
        return f"must be one of {detail['ctx']['expected_tags']}, not {detail['ctx']['tag']!r:.60}"
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    reason = _SUBJECT.sub("must", detail["msg"]).replace(" after validation", "")
    if isinstance(detail["input"], str | int | float | None):
        return f"{reason}, not {_shortened(detail['input'])}"
    return reason


def _shortened(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "..."


def _path(detail: ErrorDetails) -> tuple[int | str, ...]:
    """Return the path of the invalid field.

    For items of `messages`, pydantic adds the role to the path. The returned path omits the role.
    """
    loc = detail["loc"]
    if detail["type"].startswith("union_tag_"):
        return (*loc, detail["ctx"]["discriminator"].strip("'"))
    return loc[:2] + loc[3:] if loc[0] == _MESSAGES_FIELD and len(loc) > 3 else loc


def _dotted(loc: tuple[int | str, ...]) -> str:
    """Format a path, for example `("messages", 0, "role")` as `messages[0].role`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.removeprefix(".")
