"""Describes headers and queries in the OpenAPI document, and reads those of lists."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import FastAPI

from api.http.headers import (
    DEADLINE_HEADER,
    IDEMPOTENCY_HEADER,
    KEY_PATTERN,
    ON_DISCONNECT_HEADER,
    PREFER_HEADER,
    STRICT_HANDLING,
)
from shared.errors import ErrorCode, JobError, JobFailed, invalid_value

Parameters = list[dict[str, Any]]


def header(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of an optional request header."""
    return {"name": name, "in": "header", "description": description, "schema": schema}


def query(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of an optional query parameter. An array may be repeated."""
    return {"name": name, "in": "query", "description": description, "schema": schema}


def limit(items: str, *, default: int, most: int) -> dict[str, Any]:
    """Return the entry of the query parameter `limit` of a list of `items`."""
    schema = {"type": "integer", "minimum": 1, "maximum": most}
    return query("limit", f"Maximum number of {items}. Defaults to {default}.", schema)


INFERENCE: Parameters = [
    header(
        IDEMPOTENCY_HEADER,
        "Requests of one tenant with the same key and body share one job, and thus one answer.",
        {"type": "string", "pattern": f"^{KEY_PATTERN}$"},
    ),
    header(
        ON_DISCONNECT_HEADER,
        "continue: the job runs to its end even if the client closes its connection. cancel: it is "
        "cancelled some seconds later, unless the client comes back. Defaults to cancel.",
        {"type": "string", "enum": ["continue", "cancel"]},
    ),
    header(
        DEADLINE_HEADER,
        "Time limit of the request in seconds, at most the server's --deadline-s, its default.",
        {"type": "number", "exclusiveMinimum": 0},
    ),
    header(
        PREFER_HEADER,
        f"{STRICT_HANDLING} (RFC 7240): unknown fields are a 400. Otherwise, the response header "
        "X-Lorikeet-Warning lists them.",
        {"type": "string"},
    ),
]
"""Headers of a request for an answer."""


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
    """Check that a URL accepts all parameters of a query.

    Raises:
        JobFailed: a parameter is unknown. The error names it, and lists the known ones.
    """
    for name in given:
        if name not in known:
            message = f"unknown parameter: {name[:60]}; this URL accepts {', '.join(known)}"
            error = JobError(code=ErrorCode.UNKNOWN_PARAMETER, message=message, param=name)
            raise JobFailed(error)


def read_limit(text: str | None, *, default: int, most: int) -> int:
    """Return the maximum number of items that a client wants. `text` is the parameter `limit`.

    Raises:
        JobFailed: it isn't a number from 1 to `most`.
    """
    if text is None:
        return default
    limit = int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else 0
    if not 1 <= limit <= most:
        raise invalid_value(f"limit: must be a number from 1 to {most}, not {text[:60]!r}", "limit")
    return limit


async def document_of(app: FastAPI, *, with_keys: bool = False) -> dict[str, Any]:
    """Return the document of `app` without the names of models. Callers don't change it.

    Building it takes a few hundred milliseconds. The first call does that, in a thread. `with_keys`
    says whether clients need API keys.
    """
    async with app.state.openapi_lock:
        document: dict[str, Any] = await asyncio.to_thread(app.state.openapi, with_keys=with_keys)
    return document
