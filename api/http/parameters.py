"""Describes headers and queries in the OpenAPI document."""

from typing import Any

from api.http.headers import (
    DEADLINE_HEADER,
    IDEMPOTENCY_HEADER,
    KEY_PATTERN,
    ON_DISCONNECT_HEADER,
    PREFER_HEADER,
    STRICT_HANDLING,
)

Parameters = list[dict[str, Any]]


def header(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI entry for an optional request header."""
    return {"name": name, "in": "header", "description": description, "schema": schema}


def query(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI entry for an optional query parameter.

    A client may repeat an array parameter.
    """
    return {"name": name, "in": "query", "description": description, "schema": schema}


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
