"""Reads the queries of lists of files and batches."""

from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import QueryParams

from api.openapi.parameters import Parameters, query
from shared.errors import ErrorCode, JobError, JobFailed, invalid_param

DEFAULT_LIMIT = 20
MAX_LIMIT = 100

PAGE_PARAMETERS: Parameters = [
    query(
        "limit",
        f"Maximum number of items. Defaults to {DEFAULT_LIMIT}.",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT},
    ),
    query("after", "Id of an item; the page begins with the next older one.", {"type": "string"}),
]
"""Parameters of both lists in the OpenAPI document."""


@dataclass(frozen=True, slots=True)
class PageQuery:
    """Page of a list that a client wants to see."""

    limit: int
    after: str | None


def read_page_query(params: QueryParams, *, also: Collection[str] = ()) -> PageQuery:
    """Return the page that a client wants. `also` are further parameters of the URL.

    Raises:
        JobFailed: a parameter is unknown or has an invalid value. The error names the parameter.
    """
    names = [*(parameter["name"] for parameter in PAGE_PARAMETERS), *also]
    for name in params:
        if name not in names:
            message = f"unknown parameter: {name[:60]}; this URL accepts {', '.join(names)}"
            error = JobError(code=ErrorCode.UNKNOWN_PARAMETER, message=message, param=name)
            raise JobFailed(error)
    return PageQuery(limit=_limit(params.get("limit")), after=params.get("after"))


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    limit = int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else 0
    if not 1 <= limit <= MAX_LIMIT:
        raise invalid_param("limit", f"must be a number from 1 to {MAX_LIMIT}, not {text[:60]!r}")
    return limit
