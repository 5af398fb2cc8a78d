"""Redis client that limits each call's time and raises `RedisUnavailable` if Redis can't serve.

redis-py 5 has no time limits by default. The client never retries, because some calls must not be
repeated after a lost reply. For calls that are safe to repeat, callers use
`shared/store/redis/retry.py`. The functions `chunks`, `unix_ms` and `decode_hash` are helpers for
the stores in `shared/store/`.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import redis.asyncio as aioredis
from hiredis import pack_command
from redis.asyncio.client import Pipeline as BasePipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    WatchError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError as NoScriptError
from redis.exceptions import ResponseError as ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.errors import RedisUnavailable, SettingsError
from shared.store.redis.connection_pool import ConnectionPool
from shared.store.redis.login import login_refused, not_permitted
from shared.store.redis.sentinel import FORM, is_sentinel_url, sentinel_pool

CHUNK = 500
"""Default number of items per round trip. Such a round trip takes a few milliseconds."""

CONNECT_TIMEOUT_S = 2.0
MAX_BLOCK_S = 2.0
"""Maximum time in seconds for which a call may ask Redis to wait for new data."""
TIMEOUT_S = MAX_BLOCK_S + 3.0
"""Default time limit of a command or pipeline, in seconds. Blocking commands may take
`MAX_BLOCK_S` longer."""
BLOCKING = {"BLPOP", "XREAD"}
"""Commands that may wait for new data."""

CONNECTION_ERRORS = (RedisConnectionError, RedisTimeoutError, OSError)
"""Errors that redis-py raises if the server can't be reached."""

REFUSALS = (
    "BUSY ",  # a script runs for seconds; the space excludes BUSYGROUP and BUSYKEY
    "UNBLOCKED ",  # the server became a replica, or an operator unblocked the client
    "LOADING",
    "MISCONF",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "NOREPLICAS",
    "TRYAGAIN",
)
"""Beginnings of error replies from a server that is up but currently can't serve."""

REDIRECTIONS = ("MOVED ", "ASK ")
"""Beginnings of error replies from a cluster node that doesn't store the keys."""

T = TypeVar("T")

MIN_VERSIONS = {"Redis": (7, 0), "Valkey": (7, 2)}
"""Oldest supported version of each server. Earlier versions lack `#!lua` scripts, or commands that
the scripts call."""


class OutOfMemory(RedisUnavailable):
    """Redis refused a write because `maxmemory` is reached."""


class LoginRefused(RedisUnavailable):
    """Redis refused the client: it needs another password, or a user with more rights."""


class Redis(aioredis.Redis):
    """redis-py client that raises `RedisUnavailable` if the server can't serve a call.

    The error means that the server can't be reached, doesn't answer within the time limit, or
    replies that it currently can't serve. The server may nevertheless have executed the call. Other
    error replies raise redis-py's `ResponseError`.
    """

    timeout_s = TIMEOUT_S

    async def initialize(self) -> "Redis":
        """Open the client's own connection, if the client was created by `Redis.client`."""
        async with _reported_errors(self, self.timeout_s):
            return await super().initialize()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute one command within the time limit."""
        block_s = MAX_BLOCK_S if args[0] in BLOCKING else 0.0
        async with _reported_errors(self, self.timeout_s + block_s):
            if self.single_connection_client:
                return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
            return await self._execute(*args, **options)

    async def _execute(self, *args: Any, **options: Any) -> Any:
        """Execute one command as redis-py does, but without its steps for retries and locks."""
        command = pack_command((*args[0].split(), *args[1:]))
        connection = await self.connection_pool.get_connection()
        try:
            await connection.send_packed_command(command)
            return await self.parse_response(connection, args[0], **options)
        finally:
            await self.connection_pool.release(connection)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "Pipeline":
        """Return a pipeline. The client's time limit applies to all its commands together."""
        pipe = Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.timeout_s = self.timeout_s
        return pipe

    def client(self) -> "Redis":
        """Return a client with its own connection and the same time limit as this client."""
        client = type(self)(connection_pool=self.connection_pool, single_connection_client=True)
        client.timeout_s = self.timeout_s
        return client


class Pipeline(BasePipeline):
    """Pipeline of a `Redis` client."""

    timeout_s = TIMEOUT_S

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Execute the queued commands within the time limit."""
        async with _reported_errors(self, self.timeout_s):
            return await super().execute(raise_on_error)

    async def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command immediately, within the time limit. Used while arq watches keys."""
        try:
            async with _reported_errors(self, self.timeout_s):
                return await super().immediate_execute_command(  # type: ignore[no-untyped-call]
                    *args, **options
                )
        except WatchError as error:  # redis-py raises it here if the connection is lost
            raise RedisUnavailable(f"Redis is out of reach: {error}") from error


@asynccontextmanager
async def _reported_errors(client: "Redis | Pipeline", timeout_s: float) -> AsyncIterator[None]:
    """Limit the time of a call, and raise `RedisUnavailable` if Redis can't serve it.

    redis-py sends through `asyncio.wait_for`. Before Python 3.12, that function loses a
    cancellation that arrives just as the sending completes. This function then raises the lost
    cancellation.
    """
    task = asyncio.current_task()
    num_cancellations = task.cancelling() if task else 0
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except AuthenticationError as error:
        raise LoginRefused(login_refused(client.connection_pool, error)) from error
    except CONNECTION_ERRORS as error:  # includes `TimeoutError`, an OSError
        _raise_if_cancelled(task, num_cancellations)
        reason = str(error) or f"no answer within {timeout_s:g} s"
        raise RedisUnavailable(f"Redis is out of reach: {reason}") from error
    except OutOfMemoryError as error:
        raise OutOfMemory(f"Redis is out of memory: {error}") from error
    except ReadOnlyError as error:
        raise RedisUnavailable(f"Redis is a read-only replica: {error}") from error
    except ResponseError as error:
        if refusal := _refusal(str(error)):
            raise RedisUnavailable(refusal) from error
        raise
    _raise_if_cancelled(task, num_cancellations)


def _raise_if_cancelled(task: "asyncio.Task[Any] | None", num_cancellations: int) -> None:
    if task and task.cancelling() > num_cancellations:
        raise asyncio.CancelledError


def _refusal(reply: str) -> str | None:
    """Return the reason why the server can't serve, or None if the reply has another meaning."""
    if reply.startswith(REDIRECTIONS):
        return (
            "this Redis is a node of a cluster, and another node has the keys of the pool: "
            f"set --redis-url to {reply.split()[-1]}"
        )
    return f"Redis can't serve for now: {reply}" if reply.startswith(REFUSALS) else None


def chunks(items: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """Split `items` into slices of at most `size` items, in order. Each fits into one pipeline."""
    return (items[start : start + size] for start in range(0, len(items), size))


def unix_ms(time: tuple[int, int]) -> int:
    """Return the reply of TIME (seconds and microseconds) as Unix time in milliseconds."""
    seconds, micros = time
    return seconds * 1000 + micros // 1000


def decode_hash(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    """Return the fields and values of a Redis hash as text."""
    return {name.decode(): value.decode() for name, value in fields.items()}


def connect(url: str, *, max_connections: int = 64, timeout_s: float = TIMEOUT_S) -> Redis:
    """Return a client for `url`.

    The client connects on first use, and reconnects after a lost connection.

    Args:
        url: URL of a Redis server or of Sentinels.
        max_connections: maximum number of connections. If all are in use, a call waits for one.
        timeout_s: time limit of each command and pipeline, in seconds.

    Raises:
        SettingsError: `url` isn't the URL of a Redis server or of Sentinels.
    """
    is_sentinel = is_sentinel_url(url)
    options: dict[str, Any] = {
        "max_connections": max_connections,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
    }
    if not url.startswith("unix://"):  # connections to a Unix socket accept no TCP options
        options["socket_keepalive"] = True
    make_pool: Callable[..., ConnectionPool]
    make_pool = sentinel_pool if is_sentinel else ConnectionPool.from_url
    try:
        pool = make_pool(url, **options)
    except ValueError as error:
        expected = f"; expected {FORM}" if is_sentinel else ""
        raise SettingsError(f"--redis-url: {error}{expected}") from None
    client = Redis(connection_pool=pool)
    client.auto_close_connection_pool = True
    client.timeout_s = timeout_s
    return client


async def check_redis(client: Redis, url: str) -> None:
    """Check that Redis answers, has a supported version, and never evicts jobs.

    Raises:
        RedisUnavailable: a check fails. The message says what to do.
    """
    shown = shown_url(url)
    try:
        await client.ping()
        server, memory = await client.info("server"), await client.info("memory")
    except NoPermissionError as error:
        raise LoginRefused(not_permitted(client.connection_pool, error)) from None
    except LoginRefused:
        raise
    except RedisUnavailable as error:
        if not isinstance(error.__cause__, CONNECTION_ERRORS):
            raise
        reason = str(error.__cause__).rstrip(".") or "no answer in time"
        raise RedisUnavailable(
            f"no Redis at {shown}: {reason}; start one there, or correct --redis-url (lorikeet up "
            "without it starts its own)"
        ) from None
    _check_version(server, shown)
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise RedisUnavailable(
            f"Redis at {shown} has maxmemory-policy {policy}, which drops jobs; "
            "set it to noeviction"
        )


async def check_redis_at(url: str) -> None:
    """Run `check_redis` with a temporary client for `url`.

    Raises:
        RedisUnavailable: a check of `check_redis` fails.
        SettingsError: `url` isn't the URL of a Redis server or of Sentinels.
    """
    async with connect(url) as client:
        await check_redis(client, url)


def _check_version(info: Mapping[str, Any], shown: str) -> None:
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get(f"{name.lower()}_version", ""))
    needed = MIN_VERSIONS[name]
    # Some proxies hide the version. Servers without a version are accepted.
    if version and tuple(map(int, re.findall(r"\d+", version)[:2])) < needed:
        raise RedisUnavailable(
            f"the server at {shown} is {name} {version}, which is older than "
            f"{needed[0]}.{needed[1]}; install a newer one or set --redis-url"
        )


def shown_url(url: str) -> str:
    """Return `url` with its password masked, for logs and messages."""
    password = urlsplit(url).password
    shown = url.replace(f":{password}@", ":***@") if password else url
    return re.sub(r"(?<=[?&]password=)[^&]+", "***", shown)
