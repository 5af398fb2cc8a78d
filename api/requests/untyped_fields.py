"""Checks parts of requests that are validated without a schema. Pure."""

from collections.abc import Mapping
from typing import Any, NoReturn

from shared.errors import ErrorCode, JobFailed, failed


def string_of(part: Mapping[str, Any], name: str, path: str) -> str:
    """Return the field `name` of a part, which must be a string. `path` is that of the part.

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
    raise refusal(path, reason, code)


def refusal(path: str, reason: str, code: ErrorCode = ErrorCode.INVALID_VALUE) -> JobFailed:
    """Return the failure of a request because of the field at `path`."""
    return failed(code, f"{path}: {reason}", path)
