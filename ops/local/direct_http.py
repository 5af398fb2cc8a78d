"""Sends HTTP requests to servers on this machine, bypassing any proxy."""

from http.client import HTTPException
from urllib.request import ProxyHandler, Request, build_opener

TIMEOUT_S = 5.0

# A proxy would resolve a loopback address to its own machine instead of this one.
_opener = build_opener(ProxyHandler({}))


def get(url: str, headers: dict[str, str] | None = None) -> bytes | None:
    """Send a GET request and return the body of a successful reply, or else None."""
    try:
        with _opener.open(Request(url, headers=headers or {}), timeout=TIMEOUT_S) as reply:
            body: bytes = reply.read()
            return body
    except (OSError, HTTPException):  # urllib raises OSErrors, also for error statuses
        return None
