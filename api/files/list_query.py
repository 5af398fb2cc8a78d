"""Queries of lists of files and batches, and bodies that describe files."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams

from api.http.parameters import Parameters, check_known, limit, query, read_limit
from shared.store.batches.records import StoredFile

DEFAULT_LIMIT = 20
MAX_LIMIT = 100

PAGE_PARAMETERS: Parameters = [
    limit("items", default=DEFAULT_LIMIT, most=MAX_LIMIT),
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


def file_body(file: StoredFile) -> dict[str, Any]:
    """Return the body that describes a file."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.num_bytes,
        "created_at": file.created_s,
        "expires_at": file.expires_s,
        "filename": file.name,
        "purpose": file.purpose.value,
        "status": "processed",
    }
