"""Tells when an engine hangs."""

import asyncio
from collections.abc import Callable

LOOKS = 10
"""In the time that makes a stall."""
MAX_LOOK_S = 1.0


async def until_stalled(step_s: Callable[[], float], limit_s: float) -> None:
    """Return when the engine has been at one step for `limit_s`.

    Time in which this process didn't run doesn't count: a machine that slept, or a container that
    was paused, has no hung engine.

    Args:
        step_s: for how long the engine has been at its present step, in seconds.
        limit_s: how long a step may take.
    """
    pause_s = min(MAX_LOOK_S, limit_s / LOOKS)
    loop = asyncio.get_running_loop()
    stalled_s, looked_s = 0.0, loop.time()
    while stalled_s < limit_s:
        await asyncio.sleep(pause_s)
        now_s = loop.time()
        elapsed_s, looked_s = min(now_s - looked_s, 2 * pause_s), now_s
        at_step_s = step_s()
        stalled_s = min(at_step_s, stalled_s + elapsed_s)
