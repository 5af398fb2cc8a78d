"""`lorikeet audit`: checks that every Redis key of a pool has an owner or a lifetime."""

import asyncio
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from ops.commands.flags import read_settings, settings_flags
from ops.terminal import print_error_line, print_line, table
from shared.errors import LorikeetError
from shared.settings import PoolSettings
from shared.store.audit.auditor import SETTLE_S, Audit, Auditor
from shared.store.redis.connection import check_redis, connect, shown_url
from shared.store.redis.keys import Keys


class StraysFound(LorikeetError):
    """Some keys of the pool have neither an owner nor a lifetime."""


@settings_flags(PoolSettings)
def audit(
    settle_s: Annotated[
        float,
        typer.Option(
            "--settle-s", min=0, metavar="N", help="Seconds a key must lack both to be listed."
        ),
    ] = SETTLE_S,
    **given: Any,
) -> None:
    """Check that every key of the pool in Redis has an owner or a lifetime.

    The command reads the Redis at --redis-url itself. It lists the keys that have had neither for
    some seconds. If there are such keys, it exits with status 1. It changes nothing.
    """
    settings = read_settings(PoolSettings, given)
    result = asyncio.run(_audited(settings, settle_s))
    if not result.strays:
        print_line(f"{result.num_keys:,} keys, each with an owner or a lifetime")
        return
    strays = table("key", "member", "reason")
    for stray in result.strays:
        strays.add_row(*map(Text, (stray.key, stray.member, stray.reason)))
    Console().print(strays)
    raise StraysFound(f"{len(result.strays):,} strays among {result.num_keys:,} keys")


async def _audited(settings: PoolSettings, settle_s: float) -> Audit:
    async with connect(settings.redis_url) as redis:
        await check_redis(redis, settings.redis_url)
        print_error_line(f"pool {settings.pool} at {shown_url(settings.redis_url)}")
        return await Auditor(redis, Keys(settings.pool)).audit(settle_s=settle_s)
