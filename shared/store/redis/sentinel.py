"""Connections to the master of a Redis service that Sentinels watch.

When a connection is opened, the Sentinels are asked for the address of the master.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    parse_url,
)
from redis.exceptions import AuthenticationError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.store.redis.connection_pool import ConnectionPool

SUFFIX = "+sentinel"
FORM = f"redis{SUFFIX}://[user:password@]host1:26379,host2:26379/service[/db]"
SENTINEL_PORT = 26379
ASK_TIMEOUT_S = 1.0
"""Seconds to wait for the answer of one Sentinel before the next one is asked."""

Address = tuple[str, int]


def is_sentinel_url(url: str) -> bool:
    """Return whether `url` names Sentinels instead of a single Redis server."""
    return url.partition("://")[0] in {f"redis{SUFFIX}", f"rediss{SUFFIX}"}


@dataclass(eq=False, repr=False, slots=True, kw_only=True)
class Sentinels:
    """Sentinels of one Redis service, and the address of the service's last known master."""

    addresses: list[Address]
    service: str
    credentials: dict[str, Any]
    """User and password for the Redis service. Sentinels may need the same user and password."""
    connection_class: type[Connection]
    options: dict[str, Any]
    """Options of connections to the Sentinels."""
    master: Address | None = None

    async def connect_to_master(self, connect: Callable[[Address], Awaitable[None]]) -> None:
        """Call `connect` with the address of the master that a Sentinel reports.

        If `connect` fails, the next Sentinel is asked, because a Sentinel that was isolated from
        the others may report an old master.

        Raises:
            redis.exceptions.ConnectionError: no Sentinel reports a master that accepts connections.
        """
        failures = []
        for sentinel in tuple(self.addresses):
            # This one goes last. If the caller is cancelled, its next call begins with another one.
            self._move(sentinel, len(self.addresses))
            try:
                address = await self._ask(sentinel)
                await connect(address)
            except (RedisError, OSError) as error:
                host, port = sentinel
                failures.append(f"{host}:{port}: {_reason(error)}")
            else:
                self.master = address
                self._move(sentinel, 0)
                return
        raise RedisConnectionError(f"no master of {self.service!r} ({'; '.join(failures)})")

    def _move(self, sentinel: Address, place: int) -> None:
        self.addresses.remove(sentinel)
        self.addresses.insert(place, sentinel)

    def connection_to(self, sentinel: Address, **credentials: Any) -> Connection:
        """Return a new connection to one Sentinel. The connection isn't open yet."""
        host, port = sentinel
        return self.connection_class(host=host, port=port, **self.options, **credentials)

    async def _ask(self, sentinel: Address) -> Address:
        try:
            return await self._ask_with({}, sentinel)
        except AuthenticationError:
            # A Sentinel without a password refuses credentials, so they are sent only if needed.
            if not self.credentials:
                raise
        return await self._ask_with(self.credentials, sentinel)

    async def _ask_with(self, credentials: dict[str, Any], sentinel: Address) -> Address:
        connection = self.connection_to(sentinel, **credentials)
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                await connection.connect()  # type: ignore[no-untyped-call]
                await connection.send_command("SENTINEL GET-MASTER-ADDR-BY-NAME", self.service)
                reply = await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)
        if reply is None:
            raise RedisConnectionError(f"it has no service {self.service!r}")
        return reply[0].decode(), int(reply[1])


class MasterConnection(Connection):
    """Connection to the server that is the master when the connection is opened."""

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:
        self._sentinels = sentinels
        super().__init__(**options)

    @property
    def is_to_master(self) -> bool:
        """Whether this connection leads to the last known master."""
        return (self.host, self.port) == self._sentinels.master

    async def connect(self) -> None:
        """Find the master and connect to it, unless this connection is already open."""
        if not self.is_connected:
            await self._sentinels.connect_to_master(self._connect_to)

    async def _connect_to(self, address: Address) -> None:
        self.host, self.port = address
        try:
            # A suspended server also accepts connections, but it never answers HELLO.
            async with asyncio.timeout(self.socket_connect_timeout):
                await super().connect()  # type: ignore[no-untyped-call]
                await self.send_command("HELLO")
                hello = await super().read_response(disable_decoding=True)
            if _role(hello) != b"master":
                raise RedisConnectionError(f"{self.host}:{self.port} is a replica")
        except BaseException:
            await self.disconnect(nowait=True)
            raise

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Return the next response. If it shows that the server is a replica, disconnect.

        Raises:
            redis.exceptions.ConnectionError: the server is no longer the master.
        """
        try:
            return await super().read_response(*args, **options)
        except ResponseError as error:
            if not _comes_from_replica(error):
                raise
            self._sentinels.master = None
            await self.disconnect(nowait=True)
            raise RedisConnectionError(f"the master has become a replica: {error}") from error


class TlsMasterConnection(MasterConnection, SSLConnection):
    """`MasterConnection` with TLS."""


class SentinelPool(ConnectionPool):
    """Pool of connections to the master. Idle connections to an earlier master are replaced."""

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Reconnect `connection` if it leads to an earlier master or can't be used."""
        assert isinstance(connection, MasterConnection)
        if connection.is_connected and not connection.is_to_master:
            await connection.disconnect(nowait=True)
        await super().ensure_connection(connection)


def sentinel_pool(url: str, **options: Any) -> SentinelPool:
    """Return a pool of connections to the master of the service in `url`.

    `options` are those of redis-py's pool. Options in the URL override them.

    Raises:
        ValueError: `url` doesn't have the form that `FORM` shows. The message doesn't contain the
            URL.
    """
    parts = urlsplit(url)
    scheme = parts.scheme.removesuffix(SUFFIX)
    user, at, hosts = parts.netloc.rpartition("@")
    service, _, db = parts.path.strip("/").partition("/")
    if not service or parts.fragment or not (db.isdecimal() or not db):
        raise ValueError(
            "the hosts must be followed by the name of the service and an optional database number"
        )
    # The query has the same options as that of a single server's URL, so redis-py can parse it.
    url_options = dict(
        parse_url(urlunsplit((scheme, f"{user}{at}localhost", f"/{db}", parts.query, "")))
    )
    for name in ("host", "port", "connection_class"):
        url_options.pop(name, None)
    options |= url_options
    sentinels = Sentinels(
        addresses=[_address(host) for host in hosts.split(",")],
        service=unquote(service),
        credentials={name: options[name] for name in ("username", "password") if name in options},
        connection_class=SSLConnection if scheme == "rediss" else Connection,
        options=_sentinel_options(options),
    )
    master_class = TlsMasterConnection if scheme == "rediss" else MasterConnection
    return SentinelPool(connection_class=master_class, sentinels=sentinels, **options)


def _address(host: str) -> Address:
    try:
        parts = urlsplit(f"//{host}")
        name, port = parts.hostname, parts.port
    except ValueError:
        name, port = None, None
    if not name:
        raise ValueError("a host or its port is invalid")
    return unquote(name), port or SENTINEL_PORT


def _sentinel_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of connections to Sentinels, derived from options for the master."""
    shared = {name: value for name, value in options.items() if name.startswith("ssl_")}
    limits = {"socket_connect_timeout": ASK_TIMEOUT_S, "socket_timeout": ASK_TIMEOUT_S}
    return {**shared, **limits, "lib_name": None, "lib_version": None}


def _reason(error: Exception) -> str:
    if isinstance(error, AuthenticationError):
        return f"it needs the right password in the URL ({str(error).rstrip('.')})"
    return str(error) or "no answer in time"


def _role(hello: Any) -> Any:
    # RESP2 has no maps, so names and values alternate in the reply.
    fields = hello if isinstance(hello, dict) else dict(zip(hello[::2], hello[1::2], strict=True))
    return fields.get(b"role")


def _comes_from_replica(error: ResponseError) -> bool:
    replica_errors = ("UNBLOCKED ", "MASTERDOWN ")
    return isinstance(error, ReadOnlyError) or str(error).startswith(replica_errors)
