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
from redis.exceptions import NoScriptError as NoScriptError
from redis.exceptions import OutOfMemoryError, ReadOnlyError
from redis.exceptions import ResponseError as ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.errors import RedisUnavailable, SettingsError
from shared.store.sentinel import FORM, is_sentinel_url, sentinel_pool

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

REDIRECTIONS = ("MOVED ", "ASK ")
"""How a node of a cluster begins its answer when another node has the keys."""

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
        raise _refusal(error) from error


def _refusal(error: ResponseError) -> Exception:
    """What `error` means: Redis can't serve us for now, or our command is wrong."""
    text = str(error)
    if text.startswith(REDIRECTIONS):
        return RedisUnavailable(
            "this Redis is a node of a cluster, and the keys of the pool are in another node: "
            f"set --redis-url to {text.split()[-1]}"
        )
    return RedisUnavailable(f"Redis doesn't serve: {error}") if text.startswith(REFUSALS) else error


def connect(url: str, *, max_connections: int = 64) -> Redis:
    """A client for `url`; connects on first use, and again after a break.

    Raises:
        SettingsError: `url` isn't the URL of a Redis, or of Sentinels.
    """
    make_pool = _sentinel_pool if is_sentinel_url(url) else _pool
    return Redis.from_pool(
        make_pool(
            url,
            max_connections=max_connections,
            timeout=CONNECT_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=MAX_BLOCK_S + 3.0,
            retry=Retry(NoBackoff(), 0),
        )
    )


def _pool(url: str, **options: Any) -> aioredis.BlockingConnectionPool:
    # A Unix socket's connection doesn't take options of TCP.
    if not url.startswith("unix://"):
        options["socket_keepalive"] = True
    try:
        return aioredis.BlockingConnectionPool.from_url(url, **options)
    except ValueError as error:
        raise SettingsError(f"--redis-url: {error}") from None


def _sentinel_pool(url: str, **options: Any) -> aioredis.BlockingConnectionPool:
    try:
        return sentinel_pool(url, socket_keepalive=True, **options)
    except ValueError as error:
        raise SettingsError(f"--redis-url: {error}; expected {FORM}") from None


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
    shown = url.replace(f":{password}@", ":***@") if password else url
    return re.sub(r"(?<=[?&]password=)[^&]+", "***", shown)
