"""`lorikeet queue`: shows workers, resident adapter versions, waiting jobs and rates."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, RenderableType
from rich.live import Live

from ops.commands.clients.on_server import on_server
from ops.commands.clients.status import pool_client
from ops.pool_screen import Sample, queue_screen

if TYPE_CHECKING:
    from ops.pool_client import PoolClient

REFRESH_S = 1.0
RATE_WINDOW_S = 10.0
"""Seconds over which rates are averaged.

Rates over a shorter time would be unsteady, because workers report token counts only every two
seconds.
"""


@on_server(pool_client)
def queue(
    client: "PoolClient",
    watch: Annotated[
        bool, typer.Option("--watch", help="Refresh every second until Ctrl-C.")
    ] = False,
) -> None:
    """Show workers, the adapter versions resident on them, and waiting jobs. --watch adds rates.

    It needs a key with the scope admin, if the server demands keys.
    """
    if not watch:
        sample = Sample(time.monotonic(), client.pool())
        Console().print(queue_screen(sample, sample))
        return
    with suppress(KeyboardInterrupt), Live(screen=True, auto_refresh=False) as live:
        for view in views(client):
            live.update(view, refresh=True)


def views(client: "PoolClient") -> Iterator[RenderableType]:
    """Yield a view of the pool every second."""
    samples: deque[Sample] = deque()
    while True:
        samples.append(Sample(time.monotonic(), client.pool()))
        while samples[-1].at_s - samples[0].at_s > RATE_WINDOW_S:
            samples.popleft()
        yield queue_screen(samples[0], samples[-1])
        time.sleep(REFRESH_S)
