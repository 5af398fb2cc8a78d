"""Cancels asyncio tasks and waits until they end."""

import asyncio


async def cancel_tasks(*tasks: "asyncio.Task[None]") -> None:
    """Cancel tasks, and return when all of them have ended. Errors of the tasks aren't raised."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
