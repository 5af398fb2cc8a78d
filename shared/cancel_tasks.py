"""Cancels asyncio tasks and waits for their end."""

import asyncio


async def cancel_tasks(*tasks: "asyncio.Task[None]") -> None:
    """Cancel tasks and return when all have ended. Errors of the tasks aren't raised here."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
