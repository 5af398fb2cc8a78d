"""Ending asyncio tasks that wait for Redis."""

import asyncio

CANCEL_AGAIN_S = 0.1


async def cancel_tasks(*tasks: "asyncio.Task[None]") -> None:
    """Cancel tasks, and return when all have ended; a task's own error is left to its owner.

    It cancels more than once: `asyncio.wait_for` of Python 3.11, through which redis-py sends,
    may swallow a cancellation that comes just as the sending is done.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
