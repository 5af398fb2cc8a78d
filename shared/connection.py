"""Connections to Redis, with a time limit on every wait.

redis-py 5 has neither time limits nor retries by default. Claims and publications must not be
retried blindly (a lost reply would claim twice), so the client here doesn't retry; whoever may
repeat a call says so where it is called.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.errors import RedisUnavailable, SettingsError

CONNECT_TIMEOUT_S = 2.0
MAX_BLOCK_S = 2.0
"""Longest BLOCK of any call; the socket waits three seconds longer."""

REDIS_DOWN = (RedisConnectionError, RedisTimeoutError, OSError)
"""What redis-py raises while the server can't be reached."""

REFUSALS = (
    "BUSY ",  # a script runs for seconds; BUSYGROUP and BUSYKEY are something else
    "UNBLOCKED ",  # it became a replica, or somebody ended our wait
    "LOADING",
    "MISCONF",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "NOREPLICAS",
    "TRYAGAIN",
)
"""How a server begins its answer when it is up, but doesn't serve for now."""

MIN_VERSIONS = {"Redis": (7, 0), "Valkey": (7, 2)}
"""The first ones that know `#!lua` scripts and all the commands in ours."""

Redis = aioredis.Redis


class OutOfMemory(RedisUnavailable):
    """Redis refused a write because `maxmemory` is reached."""


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turn what redis-py raises when Redis is away or refuses to serve into `RedisUnavailable`."""
    try:
        yield
    except REDIS_DOWN as error:
        raise RedisUnavailable(f"Redis is out of reach: {error}") from error
    except OutOfMemoryError as error:
        raise OutOfMemory(f"Redis is out of memory: {error}") from error
    except ReadOnlyError as error:
        raise RedisUnavailable(f"Redis is a read-only replica: {error}") from error
    except ResponseError as error:
        if not str(error).startswith(REFUSALS):
            raise
        raise RedisUnavailable(f"Redis doesn't serve: {error}") from error


def connect(url: str, *, max_connections: int = 64) -> Redis:
    """A client for `url`; connects on first use, and again after a break.

    Raises:
        SettingsError: `url` isn't the URL of a Redis.
    """
    # A Unix socket's connection doesn't take options of TCP.
    tcp_options = {} if url.startswith("unix://") else {"socket_keepalive": True}
    try:
        pool = aioredis.BlockingConnectionPool.from_url(
            url,
            max_connections=max_connections,
            timeout=CONNECT_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=MAX_BLOCK_S + 3.0,
            retry=Retry(NoBackoff(), 0),
            **tcp_options,
        )
    except ValueError as error:
        raise SettingsError(f"--redis-url: {error}") from None
    return Redis.from_pool(pool)


async def check_redis(client: Redis, url: str) -> None:
    """Make sure that Redis answers, is recent enough and would not evict jobs.

    Raises:
        RedisUnavailable: it doesn't, with what to do about it.
    """
    shown = _without_password(url)
    with redis_errors():
        try:
            await client.ping()
            server, memory = await client.info("server"), await client.info("memory")
        except REDIS_DOWN as error:
            raise RedisUnavailable(
                f"no Redis at {shown}: {str(error).rstrip('.')}; start one or set --redis-url"
            ) from None
    _check_version(server, shown)
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise RedisUnavailable(
            f"Redis at {shown} has maxmemory-policy {policy}, which drops jobs; "
            "set it to noeviction"
        )


async def check_redis_at(url: str) -> None:
    """`check_redis` for who has no client yet.

    Raises:
        RedisUnavailable: as `check_redis`.
        SettingsError: `url` isn't the URL of a Redis.
    """
    client = connect(url)
    try:
        await check_redis(client, url)
    finally:
        await client.aclose()


def _check_version(info: Mapping[str, Any], shown: str) -> None:
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get(f"{name.lower()}_version", ""))
    needed = MIN_VERSIONS[name]
    # Some proxies hide the version.
    if version and tuple(map(int, re.findall(r"\d+", version)[:2])) < needed:
        raise RedisUnavailable(
            f"the server at {shown} is {name} {version}, which is older than "
            f"{needed[0]}.{needed[1]}; install a newer one or set --redis-url"
        )


def _without_password(url: str) -> str:
    """`url` as it may stand in a log."""
    password = urlsplit(url).password
    return url.replace(f":{password}@", ":***@") if password else url
