"""Fetches files over HTTP, and follows redirects after checking each of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from ssl import SSLContext
from urllib.parse import urljoin

import httpcore
import httpx

from shared.adapter_sources import RemoteUrl
from shared.errors import AdapterRejected, ErrorCode, SourceFailed
from shared.guarded_fetch.budget import FetchBudget
from shared.guarded_fetch.pinned_connection import AddressCheck, PinnedBackend, explained

MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_GONE = (404, 410)
_LATER = (408, 425, 429)
_REQUEST_HEADERS = [("Accept-Encoding", "identity"), ("User-Agent", "lorikeet")]


Parse = Callable[[str], RemoteUrl]
"""Returns the parts of the URL of a redirect. Raises `BadUrl` or `SourceFailed` if the redirect
isn't allowed."""


def fetch_over_http(
    url: RemoteUrl, *, parse: Parse, check: AddressCheck, budget: FetchBudget
) -> Iterator[bytes]:
    """Yield the bytes at `url`. Follow its redirects, if `parse` allows them.

    Raises:
        AdapterRejected: the response can't be used. The subclass `SourceFailed` means that there is
            no response.
    """
    backend = PinnedBackend(check, budget)
    with httpcore.ConnectionPool(ssl_context=_tls(), network_backend=backend) as pool:
        for _ in range(MAX_REDIRECTS + 1):
            with _response(pool, url, budget) as response:
                if response.status not in _REDIRECTS:
                    yield from _content(response, budget)
                    return
                url = _target(url, response, parse)
    raise AdapterRejected(f"it redirects more than {MAX_REDIRECTS} times")


@cache
def _tls() -> SSLContext:
    return httpx.create_ssl_context()


@contextmanager
def _response(
    pool: httpcore.ConnectionPool, url: RemoteUrl, budget: FetchBudget
) -> Iterator[httpcore.Response]:
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    # The parts are passed one by one, so that no second parser can interpret the URL differently.
    place = httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=target)
    try:
        with pool.stream("GET", place, headers=_REQUEST_HEADERS) as response:
            yield response
    except _ERRORS as error:
        budget.left_s()  # raises if the time is over, which then explains the error
        raise explained(error) from None


_ERRORS = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
)


def _target(url: RemoteUrl, response: httpcore.Response, parse: Parse) -> RemoteUrl:
    """Return the URL to which a response redirects, without its fragment (such as a digest)."""
    location = _header(response, b"location")
    try:
        target = urljoin(f"{url.address}?{url.query}", location)
        return parse(target.partition("#")[0])
    except ValueError as error:  # BadUrl, or of the standard library
        message = f"it redirects to {location[:200]!r}: {error}"
        raise SourceFailed(ErrorCode.SOURCE_NOT_ALLOWED, message) from None


def _content(response: httpcore.Response, budget: FetchBudget) -> Iterator[bytes]:
    _check_status(response.status)
    encoding = _header(response, b"content-encoding")
    if encoding not in ("", "identity"):
        raise AdapterRejected(f"the server has encoded it as {encoding[:40]!r}")
    length = _header(response, b"content-length")
    if length.isdecimal():
        budget.expect(int(length))
    for piece in response.iter_stream():
        budget.receive(len(piece))
        yield piece


def _check_status(status: int) -> None:
    if status == 200:
        return
    code = ErrorCode.SOURCE_NOT_ALLOWED
    if status in _GONE:
        code = ErrorCode.SOURCE_NOT_FOUND
    elif status in _LATER or status >= 500:
        code = ErrorCode.UNAVAILABLE
    raise SourceFailed(code, f"the server answered with status {status}")


def _header(response: httpcore.Response, name: bytes) -> str:
    found = [value for key, value in response.headers if key.lower() == name]
    return found[0].decode("ascii", "replace").strip() if found else ""
