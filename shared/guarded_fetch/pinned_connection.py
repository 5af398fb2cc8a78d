"""Connections to addresses that were checked.

A name is resolved once, all of its addresses are checked, and the connection is made to one of
them. Therefore the connection can't lead elsewhere, even if the name resolves to another address a
moment later.
"""

import socket
import ssl
from collections.abc import Callable, Collection, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import httpcore

from shared.errors import AdapterRejected, ErrorCode, SourceFailed
from shared.guarded_fetch.budget import FetchBudget

CONNECT_S = 10.0
SILENCE_S = 30.0
"""Seconds without a byte after which a connection is given up."""

Resolve = Callable[[str, int], Sequence[str]]
"""Returns the addresses of a host. Raises OSError if it has none."""
_NAT64 = IPv6Network("64:ff9b::/96")
_SPECIAL = tuple(
    ip_network(text)
    for text in ("192.0.0.0/24", "168.63.129.16/32", "192.88.99.0/24", "fec0::/10", "3fff::/20")
)
"""Networks that some releases of Python wrongly treat as public. Some contain metadata services of
clouds."""


class NotPublic(SourceFailed):
    """A host has an address that isn't public. The error message contains the address."""


def system_addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a host, using the system's name resolution."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class AddressCheck:
    """Resolves host names, and refuses addresses that aren't public."""

    def __init__(
        self,
        private_hosts: Collection[str] = (),
        *,
        setting: str = "the workers' --adapter-private-host",
        resolve: Resolve = system_addresses,
    ) -> None:
        """Create a check that allows every address of the hosts in `private_hosts`.

        `setting` is the name of the setting that lists these hosts. Error messages contain this
        name.
        """
        self._setting = setting
        self._private_hosts = frozenset(host.lower() for host in private_hosts)
        self._resolve = resolve

    def addresses(self, host: str, port: int) -> Sequence[str]:
        """Return a host's addresses.

        Raises:
            SourceFailed: the host has no address. The subclass `NotPublic` means that an address of
                the host isn't public.
        """
        try:
            found = self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            message = f"the name {host} can't be resolved: {error}"
            raise SourceFailed(ErrorCode.UNAVAILABLE, message) from None
        private = [address for address in found if not is_public(address)]
        if private and host not in self._private_hosts:
            raise NotPublic(
                ErrorCode.SOURCE_NOT_ALLOWED,
                f"{host} has the address {private[0]}, which isn't public; {self._setting} "
                "allows it",
            )
        return found


class PinnedBackend(httpcore.NetworkBackend):
    """Opens the connections of one fetch."""

    def __init__(self, check: AddressCheck, budget: FetchBudget) -> None:
        """Create a backend. Its connections end when the time of `budget` is over."""
        self._check = check
        self._budget = budget
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of the host that accepts a connection.

        Before that, check that all addresses of the host are allowed.
        """
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in self._check.addresses(host, port):
            left_s = min(CONNECT_S, self._budget.left_s())
            try:
                stream = self._backend.connect_tcp(address, port, left_s, local_address)
                return _TimedStream(stream, self._budget)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _TimedStream(httpcore.NetworkStream):
    """A stream that fails when the time of a budget is over, even if bytes still arrive."""

    def __init__(self, stream: httpcore.NetworkStream, budget: FetchBudget) -> None:
        self._stream = stream
        self._budget = budget

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._timeout_s())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._timeout_s())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, self._timeout_s())
        return _TimedStream(stream, self._budget)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def _timeout_s(self) -> float:
        return min(SILENCE_S, self._budget.left_s())


def explained(error: Exception) -> AdapterRejected:
    """Convert an error of the HTTP client to an error that says why the fetch failed."""
    if isinstance(error, httpcore.RemoteProtocolError):
        return AdapterRejected(f"the server's response isn't valid HTTP: {error}")
    cause = error.__cause__ or error.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return AdapterRejected(f"the server's certificate isn't valid: {cause.verify_message}")
    return SourceFailed(
        ErrorCode.UNAVAILABLE, f"the server can't be reached ({type(error).__name__}: {error})"
    )


def is_public(address: str) -> bool:
    """Return whether `address` is a public internet address.

    Private, loopback, link-local, multicast and reserved addresses aren't public. If an IPv6
    address contains an IPv4 address, the IPv4 address is checked, because the machine or a gateway
    would connect to it.
    """
    ip = ip_address(address.partition("%")[0])
    held = _held(ip) if isinstance(ip, IPv6Address) else None
    if held is not None:
        return is_public(str(held))
    if any(ip in network for network in _SPECIAL):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _held(ip: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 address contains, or None if it contains none."""
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    teredo = ip.teredo[1] if ip.teredo else None
    return ip.ipv4_mapped or ip.sixtofour or teredo
