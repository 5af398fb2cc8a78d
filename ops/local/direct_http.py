"""HTTP requests to servers on this machine, past any proxy."""

from http.client import HTTPException
from urllib.request import ProxyHandler, Request, build_opener

TIMEOUT_S = 5.0

# A proxy of the environment would look for a loopback address on its own machine.
_opener = build_opener(ProxyHandler({}))


def get(url: str, headers: dict[str, str] | None = None) -> bytes | None:
    """Return the body of a successful reply, or None after an error status or no reply."""
    try:
        with _opener.open(Request(url, headers=headers or {}), timeout=TIMEOUT_S) as reply:
            body: bytes = reply.read()
            return body
    except (OSError, HTTPException):  # urllib's errors, error statuses included, are OSErrors
        return None
