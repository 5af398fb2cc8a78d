"""Pages of lists: their query parameters and their bodies."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from starlette.datastructures import QueryParams

from api.http.parameters import Parameters, query
from shared.errors import ErrorCode, failed, invalid_value


def limit(items: str, *, default: int, most: int) -> dict[str, Any]:
    """Return the OpenAPI entry of the query parameter `limit` of a list of `items`."""
    schema = {"type": "integer", "minimum": 1, "maximum": most}
    return query("limit", f"Maximum number of {items}. Defaults to {default}.", schema)


DEFAULT_LIMIT = 20
MAX_LIMIT = 100
PAGE_PARAMETERS: Parameters = [
    limit("items", default=DEFAULT_LIMIT, most=MAX_LIMIT),
    query("after", "Id of an item; the page begins with the next older one.", {"type": "string"}),
]
"""Parameters of the lists of files and of batches in the OpenAPI document."""


def page_body(items: Sequence[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """Return the body of a page of a list. `items` are the bodies of the page's items."""
    return {
        "object": "list",
        "data": items,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": has_more,
    }


def check_known(given: Iterable[str], known: Sequence[str]) -> None:
    """Check that the URL accepts all parameters of a query. `known` are the accepted parameters.

    Raises:
        JobFailed: a parameter is unknown. The error names it, and lists the known ones.
    """
    for name in given:
        if name not in known:
            message = f"unknown parameter: {name[:60]}; this URL accepts {', '.join(known)}"
            raise failed(ErrorCode.UNKNOWN_PARAMETER, message, name)


def read_limit(text: str | None, *, default: int, most: int) -> int:
    """Return the maximum number of items that a client wants. `text` is the parameter `limit`.

    Raises:
        JobFailed: `text` isn't a number from 1 to `most`.
    """
    if text is None:
        return default
    limit = int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else 0
    if not 1 <= limit <= most:
        raise invalid_value(f"limit: must be a number from 1 to {most}, not {text[:60]!r}", "limit")
    return limit


def read_page_query(params: QueryParams, *, also: Collection[str] = ()) -> tuple[int, str | None]:
    """Return the parameters `limit` and `after` of a page. `also` names other valid parameters.

    Raises:
        JobFailed: a parameter is unknown or has an invalid value. The error names the parameter.
    """
    names = [*(parameter["name"] for parameter in PAGE_PARAMETERS), *also]
    check_known(params, names)
    most = read_limit(params.get("limit"), default=DEFAULT_LIMIT, most=MAX_LIMIT)
    return most, params.get("after")
