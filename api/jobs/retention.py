"""Checks the limit on the memory of finished jobs against Redis' own limit."""

import structlog

from shared.protocol.enqueue import MIB
from shared.settings import ApiSettings
from shared.store.redis.connection import connect

MAX_SHARE = 0.5
"""Share of Redis' `maxmemory` that finished jobs may use at most, as in `retain.lua`."""

log = structlog.get_logger()


async def warn_if_retention_is_limited(settings: ApiSettings) -> None:
    """Log a warning if finished jobs may use less memory than `retain_mb`, because Redis is small.

    Raises:
        RedisUnavailable: Redis can't be reached.
        SettingsError: `redis_url` isn't the URL of a Redis server or of Sentinels.
    """
    client = connect(settings.redis_url)
    try:
        memory = await client.info("memory")
    finally:
        await client.aclose()
    max_memory_mb = int(memory.get("maxmemory", 0)) / MIB
    if max_memory_mb and settings.retain_mb > max_memory_mb * MAX_SHARE:
        log.warning(
            "retain_mb_limited",
            retain_mb=settings.retain_mb,
            maxmemory_mb=round(max_memory_mb),
            used_mb=round(max_memory_mb * MAX_SHARE),
            hint="finished jobs get at most half of Redis' maxmemory; raise it or lower retain_mb",
        )
