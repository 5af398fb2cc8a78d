"""Reads the headers of a request for an answer. Pure."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from api.headers import DEADLINE_HEADER, IDEMPOTENCY_HEADER, ON_DISCONNECT_HEADER
from shared.errors import ErrorCode, JobError, JobFailed

MAX_KEY_CHARS = 255
KEY_PATTERN = rf"[!-~]{{1,{MAX_KEY_CHARS}}}"
"""Regular expression of idempotency keys: visible ASCII characters."""
_SECONDS = re.compile(r"[0-9]{1,10}(\.[0-9]{1,20})?(e[-+]?[0-9]{1,3})?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHeaders:
    """Wishes that a client states in the headers of a request."""

    idempotency_key: str | None = None
    is_continued: bool = False
    """Whether the job continues if the client closes its connection."""
    deadline_s: float | None = None
    """Time limit of the request in seconds. None selects the server's limit."""


def read_request_headers(headers: Mapping[str, str], *, max_deadline_s: float) -> RequestHeaders:
    """Return the wishes that `headers` state. Their names are case-insensitive.

    Raises:
        JobFailed: a header has an invalid value. The error names the header.
    """
    return RequestHeaders(
        idempotency_key=_idempotency_key(headers.get(IDEMPOTENCY_HEADER)),
        is_continued=_is_continued(headers.get(ON_DISCONNECT_HEADER)),
        deadline_s=_deadline_s(headers.get(DEADLINE_HEADER), max_deadline_s),
    )


def _idempotency_key(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(KEY_PATTERN, value):
        raise _invalid(
            IDEMPOTENCY_HEADER, f"must have 1 to {MAX_KEY_CHARS} visible ASCII characters, no space"
        )
    return value


def _is_continued(value: str | None) -> bool:
    if value not in (None, "continue", "cancel"):
        raise _invalid(ON_DISCONNECT_HEADER, f"must be continue or cancel, not {value[:60]!r}")
    return value == "continue"


def _deadline_s(value: str | None, max_deadline_s: float) -> float | None:
    if value is None:
        return None
    seconds = float(value) if _SECONDS.fullmatch(value) else math.nan
    if not 0 < seconds <= max_deadline_s:
        raise _invalid(
            DEADLINE_HEADER,
            f"must be a number of seconds above 0, and at most {max_deadline_s:g}, which the "
            f"operator has set with --deadline-s; it is {value[:60]!r}",
        )
    return seconds


def _invalid(header: str, reason: str) -> JobFailed:
    return JobFailed(
        JobError(code=ErrorCode.INVALID_VALUE, message=f"{header}: {reason}", param=header)
    )
