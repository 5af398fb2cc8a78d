"""Runs a process's main coroutine on the fastest available event loop."""

import asyncio
from collections.abc import Coroutine
from typing import Any

try:
    import uvloop
except ImportError:  # uvloop doesn't support Windows
    uvloop = None  # type: ignore[assignment]


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run `main`, on uvloop's event loop if uvloop is installed. That loop takes less CPU time."""
    loop_factory = uvloop.new_event_loop if uvloop else None
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main)
