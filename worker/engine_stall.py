"""Detects a hung engine."""

import asyncio
from collections.abc import Callable

CHECKS_PER_LIMIT = 10
"""Number of times that the engine is checked within the time limit of one step."""
MAX_CHECK_S = 1.0
"""Maximum seconds between two checks."""


async def until_stalled(step_s: Callable[[], float], limit_s: float) -> None:
    """Return once one step of the engine has taken `limit_s` seconds.

    Time during which this process was suspended doesn't count. Therefore a suspended machine or a
    paused container isn't mistaken for a hung engine.

    Args:
        step_s: returns the duration of the engine's current step so far, in seconds.
        limit_s: time limit of a step, in seconds.
    """
    pause_s = min(MAX_CHECK_S, limit_s / CHECKS_PER_LIMIT)
    loop = asyncio.get_running_loop()
    stalled_s, checked_s = 0.0, loop.time()
    while stalled_s < limit_s:
        await asyncio.sleep(pause_s)
        now_s = loop.time()
        elapsed_s, checked_s = min(now_s - checked_s, 2 * pause_s), now_s
        stalled_s = min(step_s(), stalled_s + elapsed_s)
