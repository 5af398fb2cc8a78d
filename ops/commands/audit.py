"""`lorikeet audit`: checks that every key of a pool has an owner or a lifetime."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from ops.commands.flags import settings_flags
from ops.commands.pool import on_pool
from ops.terminal import print_line, table
from shared.errors import LorikeetError
from shared.settings import PoolSettings
from shared.store.audit.auditor import SETTLE_S


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

    The command lists the keys that have had neither for some seconds. If there are such keys, it
    exits with status 1. It changes nothing.
    """
    result = on_pool(given, lambda pool: pool.auditor.audit(settle_s=settle_s))
    if not result.strays:
        print_line(f"{result.num_keys:,} keys, each with an owner or a lifetime")
        return
    strays = table("key", "member", "reason")
    for stray in result.strays:
        strays.add_row(*map(Text, (stray.key, stray.member, stray.reason)))
    Console().print(strays)
    raise StraysFound(f"{len(result.strays):,} strays among {result.num_keys:,} keys")
