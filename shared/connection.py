"""Connections to Redis, with a time limit on every wait.

redis-py 5 has neither time limits nor retries by default. Claims and publications must not be
retried blindly (a lost reply would claim twice), so the client here doesn't retry; whoever may
repeat a call says so where it is called.
"""

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.errors import RedisUnavailable

CONNECT_TIMEOUT_S = 2.0
MAX_BLOCK_S = 2.0
"""Longest BLOCK of any call; the socket waits three seconds longer."""

REDIS_DOWN = (RedisConnectionError, RedisTimeoutError, OSError)
"""What redis-py raises while the server can't be reached."""


def connect(url: str, *, max_connections: int = 64) -> "aioredis.Redis":
    """A client for `url`; connects on first use, and again after a break."""
    pool = aioredis.BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=CONNECT_TIMEOUT_S,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=MAX_BLOCK_S + 3.0,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
    )
    return aioredis.Redis.from_pool(pool)


async def check_redis(client: "aioredis.Redis", url: str) -> None:
    """Make sure that Redis answers and would not evict jobs.

    Raises:
        RedisUnavailable: it doesn't, with what to do about it.
    """
    try:
        await client.ping()
        policy = (await client.info("memory")).get("maxmemory_policy", "noeviction")
    except REDIS_DOWN as error:
        raise RedisUnavailable(
            f"no Redis at {url}: {error}; start one or set --redis-url"
        ) from None
    if policy != "noeviction":
        raise RedisUnavailable(
            f"Redis at {url} has maxmemory-policy {policy}, which drops jobs; set it to noeviction"
        )
