"""Connections to the master that Sentinels name; they are asked again whenever one is made."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from redis.asyncio.connection import (
    AbstractConnection,
    BlockingConnectionPool,
    Connection,
    SSLConnection,
    parse_url,
)
from redis.exceptions import AuthenticationError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

SUFFIX = "+sentinel"
FORM = f"redis{SUFFIX}://[user:password@]host1:26379,host2:26379/service[/db]"
SENTINEL_PORT = 26379
ASK_TIMEOUT_S = 1.0
"""Time for one Sentinel to answer; then the next one is asked."""

Address = tuple[str, int]


def is_sentinel_url(url: str) -> bool:
    """Whether `url` names Sentinels, not a Redis."""
    return url.partition("://")[0] in {f"redis{SUFFIX}", f"rediss{SUFFIX}"}


class Sentinels:
    """The Sentinels of one service, and where its master was found last."""

    def __init__(
        self,
        addresses: Sequence[Address],
        service: str,
        *,
        credentials: dict[str, Any],
        connection_class: type[Connection],
        options: dict[str, Any],
    ) -> None:
        self.addresses = list(addresses)
        self.service = service
        self._credentials = credentials
        self._connection_class = connection_class
        self._options = options
        self.master: Address | None = None

    async def lead(self, connect: Callable[[Address], Awaitable[None]]) -> None:
        """Call `connect` with the master that a Sentinel names.

        If it fails there, the other Sentinels are asked: one that was cut off from the rest for a
        while names an old master.

        Raises:
            redis.exceptions.ConnectionError: no Sentinel names a master that can be connected to.
        """
        failures = []
        for sentinel in tuple(self.addresses):
            # A caller that gives up meanwhile finds another one first when it comes back.
            self._move(sentinel, len(self.addresses))
            try:
                address = await self._ask(sentinel)
                await connect(address)
            except (RedisError, OSError) as error:
                host, port = sentinel
                failures.append(f"{host}:{port}: {str(error) or 'no answer in time'}")
            else:
                self.master = address
                self._move(sentinel, 0)
                return
        raise RedisConnectionError(f"no master of {self.service!r} ({'; '.join(failures)})")

    def _move(self, sentinel: Address, place: int) -> None:
        self.addresses.remove(sentinel)
        self.addresses.insert(place, sentinel)

    def connection_to(self, sentinel: Address, **credentials: Any) -> Connection:
        """A new connection to one Sentinel, which isn't connected yet."""
        host, port = sentinel
        return self._connection_class(host=host, port=port, **self._options, **credentials)

    async def _ask(self, sentinel: Address) -> Address:
        try:
            return await self._ask_with({}, sentinel)
        except AuthenticationError:
            # One without a password refuses to be given one, so it goes only to those that want it.
            if not self._credentials:
                raise
        return await self._ask_with(self._credentials, sentinel)

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
            raise RedisConnectionError(f"it knows no service {self.service!r}")
        return reply[0].decode(), int(reply[1])


class MasterConnection(Connection):
    """A connection to whatever server is the master when it is made."""

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:
        self._sentinels = sentinels
        super().__init__(**options)

    @property
    def leads_to_master(self) -> bool:
        """Whether it goes where the master was found last."""
        return (self.host, self.port) == self._sentinels.master

    async def connect(self) -> None:
        """Ask for the master and connect to it, unless it is connected."""
        if not self.is_connected:
            await self._sentinels.lead(self._connect_to)

    async def _connect_to(self, address: Address) -> None:
        self.host, self.port = address
        try:
            # A stopped server accepts connections too, and never answers.
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
        """The next response; one that only a replica gives ends the connection.

        Raises:
            redis.exceptions.ConnectionError: the server is no master any more.
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
    """The same by TLS."""


class SentinelPool(BlockingConnectionPool):
    """Connections to the master; idle ones to an earlier master are made anew."""

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Make sure that `connection` goes to the master and can be used."""
        assert isinstance(connection, MasterConnection)
        if connection.is_connected and not connection.leads_to_master:
            await connection.disconnect(nowait=True)
        await super().ensure_connection(connection)


def sentinel_pool(url: str, **options: Any) -> SentinelPool:
    """A pool for the master that the Sentinels in `url` name; `options` are those of redis-py.

    Raises:
        ValueError: `url` hasn't the form of `FORM`; the message doesn't repeat it.
    """
    parts = urlsplit(url)
    scheme = parts.scheme.removesuffix(SUFFIX)
    user, at, hosts = parts.netloc.rpartition("@")
    service, _, db = parts.path.strip("/").partition("/")
    if not service or parts.fragment or not (db.isdecimal() or not db):
        raise ValueError("after the hosts come the name of the service and, optionally, a number")
    # Options of one server's URL, as for TLS, mean the same here: redis-py reads them.
    of_url = dict(
        parse_url(urlunsplit((scheme, f"{user}{at}localhost", f"/{db}", parts.query, "")))
    )
    for name in ("host", "port", "connection_class"):
        of_url.pop(name, None)
    options |= of_url
    sentinels = Sentinels(
        [_address(host) for host in hosts.split(",")],
        unquote(service),
        credentials={name: options[name] for name in ("username", "password") if name in options},
        connection_class=SSLConnection if scheme == "rediss" else Connection,
        options=_of_sentinels(options),
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
        raise ValueError("a host or its port is wrong")
    return unquote(name), port or SENTINEL_PORT


def _of_sentinels(options: dict[str, Any]) -> dict[str, Any]:
    """What connections to Sentinels have of the `options` of those to the master."""
    shared = {name: value for name, value in options.items() if name.startswith("ssl_")}
    limits = {"socket_connect_timeout": ASK_TIMEOUT_S, "socket_timeout": ASK_TIMEOUT_S}
    return {**shared, **limits, "lib_name": None, "lib_version": None}


def _role(hello: Any) -> Any:
    # RESP2 has no maps: names and values alternate there.
    fields = hello if isinstance(hello, dict) else dict(zip(hello[::2], hello[1::2], strict=True))
    return fields.get(b"role")


def _comes_from_replica(error: ResponseError) -> bool:
    of_replicas = ("UNBLOCKED ", "MASTERDOWN ")
    return isinstance(error, ReadOnlyError) or str(error).startswith(of_replicas)
