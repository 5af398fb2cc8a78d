"""Lets web pages of other sites call the API (cross-origin resource sharing)."""

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from api.http.headers import (
    JOB_HEADER,
    LOCATION_HEADER,
    RATE_HEADERS,
    REPLAYED_HEADER,
    REQUEST_ID_HEADER,
    RETRY_AFTER_HEADER,
    SHOULD_RETRY_HEADER,
    TOOL_FORM_HEADER,
    WARNING_HEADER,
)

ANY_ORIGIN = "*"
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
_READABLE = (
    *(JOB_HEADER, WARNING_HEADER, REPLAYED_HEADER, LOCATION_HEADER),
    *(REQUEST_ID_HEADER, RETRY_AFTER_HEADER, SHOULD_RETRY_HEADER, TOOL_FORM_HEADER),
    *RATE_HEADERS,
)
"""Response headers that pages may read, in addition to those that browsers always show."""


def add_cors(app: FastAPI, origins: Sequence[str]) -> None:
    """Let pages of the sites `origins` call `app`. Add this last, so that it covers all errors.

    Browsers send no credentials of their own: a page has to send an API key that it knows.
    """
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=[ANY_ORIGIN],
            expose_headers=_READABLE,
        )
