"""Reads the queries of lists of files and batches."""

from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import QueryParams

from api.http.parameters import Parameters, query
from api.http.query import check_known, read_limit

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
    check_known(params, names)
    return PageQuery(
        limit=read_limit(params.get("limit"), default=DEFAULT_LIMIT, most=MAX_LIMIT),
        after=params.get("after"),
    )
