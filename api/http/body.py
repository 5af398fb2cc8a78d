"""From the bytes of a request to a checked model of its fields."""

import json
import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any, NoReturn, TypeVar

import orjson
from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from shared.errors import ErrorCode, JobError, JobFailed

M = TypeVar("M", bound=BaseModel)
MAX_SHOWN_CHARS = 60
_SUBJECT = re.compile(r"^\w+ should\b")
"""What pydantic's messages begin with."""
_BY_ROLE = "messages"
"""The list whose items are told apart by their role."""


async def read_json_object(request: Request, max_bytes: int) -> dict[str, Any]:
    """The body, a JSON object.

    Raises:
        JobFailed: it is larger than `max_bytes`, or isn't one.
    """
    return parse_json_object(await _read(request, max_bytes))


def parse_json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. NaN and infinities come through, for `validate` to name the field.

    Raises:
        JobFailed: it isn't one.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        value = _parse_with_nan(body, str(error))
    if not isinstance(value, dict):
        _reject("the body must be a JSON object")
    return value


def validate(model: type[M], raw: Mapping[str, Any]) -> M:
    """`raw` as a `model`.

    Raises:
        JobFailed: a field is missing, unknown, of a wrong type or out of range; names the first.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        raise JobFailed(_first_error(detail, model.model_fields)) from None


async def _read(request: Request, max_bytes: int) -> bytes:
    """The body; stops reading at the limit, whatever Content-Length says or doesn't."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        _reject_size(max_bytes)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            _reject_size(max_bytes)
        chunks.append(chunk)
    return b"".join(chunks)


def _parse_with_nan(body: bytes, reason: str) -> Any:
    """Python's clients write NaN and Infinity, which aren't JSON, and 1e999 is too large for a
    float: read them to name the field.
    """
    try:
        value = json.loads(body.decode())
        orjson.dumps(value)  # refuses what else Python lets through: half surrogate pairs
    except (ValueError, TypeError, RecursionError):
        _reject(f"the body isn't valid JSON: {reason}")
    return value


def _first_error(detail: ErrorDetails, fields: Collection[str]) -> JobError:
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
        return f"{reason}, not {_short(detail['input'])}"
    return reason


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "..."


def _path(detail: ErrorDetails) -> tuple[int | str, ...]:
    """Where the fault is. Of models told apart by a field, pydantic puts that field's value in."""
    loc = detail["loc"]
    if detail["type"].startswith("union_tag_"):
        return (*loc, detail["ctx"]["discriminator"].strip("'"))
    return loc[:2] + loc[3:] if loc[0] == _BY_ROLE and len(loc) > 3 else loc


def _dotted(loc: tuple[int | str, ...]) -> str:
    """`("messages", 0, "role")` as `messages[0].role`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.removeprefix(".")


def _reject(message: str) -> NoReturn:
    raise JobFailed(JobError(code=ErrorCode.INVALID_VALUE, message=message))


def _reject_size(max_bytes: int) -> NoReturn:
    message = f"the body is larger than {max_bytes} bytes: shorten it, or have the server's "
    message += "--max-body-bytes raised"
    raise JobFailed(JobError(code=ErrorCode.REQUEST_TOO_LARGE, message=message))
