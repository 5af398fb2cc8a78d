"""Headers of a request for an answer, and the job options that these headers set. Pure."""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from api.http.headers import (
    DEADLINE_HEADER,
    IDEMPOTENCY_HEADER,
    KEY_PATTERN,
    MAX_KEY_CHARS,
    ON_DISCONNECT_HEADER,
    PREFER_HEADER,
)
from api.schema.base import JobRequest
from shared.errors import JobFailed, invalid_value
from shared.protocol.enqueue import EnqueueOptions, IdempotencyKey

if TYPE_CHECKING:
    from starlette.datastructures import Headers

_SECONDS = re.compile(r"[0-9]{1,10}(\.[0-9]{1,20})?(e[-+]?[0-9]{1,3})?", re.IGNORECASE)
_PREFERENCE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*+"|")++')
"""One preference in a comma-separated list. Quoted strings may contain commas."""
_HANDLING = re.compile(r'\s*handling\s*=\s*"?(\w*)"?\s*(;.*)?', re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHeaders:
    """Options that a client sets in the headers of a request."""

    idempotency_key: str | None = None
    is_continued: bool = False
    """Whether the job continues if the client closes its connection."""
    deadline_s: float | None = None
    """Time limit of the request in seconds. None selects the server's limit."""
    is_strict: bool = False
    """Whether unknown fields are refused."""


def read_request_headers(headers: "Headers", *, max_deadline_s: float) -> RequestHeaders:
    """Return the options that a client sets in `headers`.

    Raises:
        JobFailed: a header has an invalid value. The error names the header.
    """
    return RequestHeaders(
        idempotency_key=_idempotency_key(headers.get(IDEMPOTENCY_HEADER)),
        is_continued=_is_continued(headers.get(ON_DISCONNECT_HEADER)),
        deadline_s=_deadline_s(headers.get(DEADLINE_HEADER), max_deadline_s),
        is_strict=_is_strict(",".join(headers.getlist(PREFER_HEADER))),
    )


def enqueue_options(
    headers: RequestHeaders,
    request: JobRequest,
    *,
    path: str,
    raw: Mapping[str, Any],
    weight: float,
    key_id: str = "",
    books_pool: str = "",
    only_repeats: bool = False,
) -> EnqueueOptions:
    """Return the options of the request's job.

    `path` is the endpoint's path, `raw` is the parsed JSON body, and `weight` is the tenant's share
    of the pool relative to other tenants. `key_id` is the id of a stored API key, and empty for
    other keys. `books_pool` and `only_repeats` become the options with the same names.
    """
    key = headers.idempotency_key
    return EnqueueOptions(
        idempotency=IdempotencyKey(key=key, body_digest=_digest(path, raw)) if key else None,
        keeps_running=headers.is_continued or bool(request.background),
        weight=weight,
        key_id=key_id,
        books_pool=books_pool,
        only_repeats=only_repeats,
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


def _is_strict(preferences: str) -> bool:
    """Return whether the first preference for handling is strict.

    As RFC 7240 demands, other preferences and malformed ones are ignored.
    """
    found = (_HANDLING.fullmatch(item) for item in _PREFERENCE.findall(preferences))
    handling = next((match[1] for match in found if match), "")
    return handling.lower() == "strict"


def _digest(path: str, raw: Mapping[str, Any]) -> str:
    """Return a digest of the request that depends on neither white space nor the order of keys."""
    canonical = orjson.dumps(raw, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(b"\n".join((path.encode(), canonical))).hexdigest()


def _invalid(header: str, reason: str) -> JobFailed:
    return invalid_value(f"{header}: {reason}", header)
