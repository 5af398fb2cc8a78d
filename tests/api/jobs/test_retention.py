"""Check of the limit on finished jobs at the start."""

from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from api.server import warn_if_retention_is_limited
from ops.local.embedded_redis import EmbeddedRedis
from shared.settings import ApiSettings
from shared.store.redis.connection import Redis

MIB = 2**20


@pytest.mark.parametrize(("max_memory_mb", "is_limited"), [(0, False), (200, False), (199, True)])
async def test_a_limit_that_redis_can_not_keep_is_logged_with_both_figures(
    own_server: EmbeddedRedis,
    open_client: Callable[[str], Redis],
    max_memory_mb: int,
    is_limited: bool,
) -> None:
    await open_client(own_server.url).config_set("maxmemory", max_memory_mb * MIB)
    with capture_logs() as logs:
        await warn_if_retention_is_limited(ApiSettings(redis_url=own_server.url, retain_mb=100))
    found = [(line["event"], line["retain_mb"], line["maxmemory_mb"]) for line in logs]
    assert found == ([("retain_mb_limited", 100, 199)] if is_limited else [])
