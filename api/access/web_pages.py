"""Protects servers without keys from web pages that their users visit.

Browsers let any web page send requests to the local machine. A page of another site can't read the
answers, but its requests can change something. A site can also make its own name resolve to the
local machine (DNS rebinding). Browsers then treat its pages as pages of this server, so they can
read the answers, too.
"""

import socket
from collections.abc import Collection, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from api.http.cors import ANY_ORIGIN
from shared.errors import ErrorCode, JobError

ANY_HOST = "*"
UNREGISTRABLE = ("localhost", "internal", "svc", "cluster.local")
"""Domains below which nobody can register a public name."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods of requests that change nothing."""
_SAME_SITE = ("same-origin", "none")


class WebPages:
    """Detects requests without a key that a web page of another site may have sent."""

    def __init__(self, host: str, allowed_hosts: Sequence[str], origins: Collection[str]) -> None:
        """Create an object for a server that listens on `host` and has the names `allowed_hosts`.

        Pages of the sites `origins` may call the API. The entry `*` stands for all names in
        `allowed_hosts`, and for all sites in `origins`.
        """
        self._hosts = {each.lower() for each in (host, socket.gethostname(), *allowed_hosts)}
        self._origins = origins

    def reason_to_refuse(self, method: str, headers: Headers) -> JobError | None:
        """Return an error if a page of another site may have sent the request, else None."""
        for host in headers.getlist("host"):
            if not self._is_own(host):
                return _denied(
                    f"this server isn't known as {host[:200]!r}, so a request without an API key "
                    "may come from a web page that poses as it; name the host in the server's "
                    "--allowed-hosts, or send an API key"
                )
        trusts_all = ANY_ORIGIN in self._origins
        if method in SAFE_METHODS or trusts_all or not is_from_another_site(headers, self._origins):
            return None
        return _denied(
            "a web page of another site may not send this request without an API key; send the "
            "request directly, or name the site in the server's --cors-origins"
        )

    def _is_own(self, host: str) -> bool:
        """Return whether the header Host names this server rather than another site.

        True for the names of this server, names that nobody can register publicly, and IP
        addresses, because DNS rebinding needs a public name.
        """
        if ANY_HOST in self._hosts or not host:
            return True
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        is_public = "." in name and not name.endswith(tuple(f".{each}" for each in UNREGISTRABLE))
        return name in self._hosts or _is_address(name) or (bool(name) and not is_public)


def is_from_another_site(headers: Headers, trusted: Collection[str]) -> bool:
    """Return whether the request comes from a web page of a site that isn't in `trusted`.

    Browsers set the header Origin to the origin of the page that sends the request. Behind a proxy,
    it can differ from the header Host even for pages of this server. The header `Sec-Fetch-Site`,
    which pages can't set, is therefore checked first.
    """
    origin = headers.get("origin")
    if origin is None or (origin in trusted and origin != ANY_ORIGIN):
        return False
    if headers.get("sec-fetch-site") in _SAME_SITE:
        return False
    return urlsplit(origin).netloc != headers.get("host")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _denied(message: str) -> JobError:
    return JobError(code=ErrorCode.PERMISSION_DENIED, message=message)
