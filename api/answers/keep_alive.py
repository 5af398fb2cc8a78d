"""Keep-alive comments of a stream, which state how long its job will probably wait."""

import asyncio
import math

from api.render.sse import sse_comment
from shared.errors import RedisUnavailable
from shared.protocol.ids import JobId
from shared.store.views.pool_views import PoolViews, Wait

KEEP_ALIVE = sse_comment("keep-alive")
READ_S = 0.5
"""Time limit in seconds for reading the place of a job. New output waits at most this long."""


async def keep_alive(views: PoolViews, job_id: JobId) -> bytes:
    """Return a comment that states the place of a job in the queue.

    The comment is plain if the job doesn't wait, or if Redis doesn't answer soon.
    """
    try:
        async with asyncio.timeout(READ_S):
            return comment(await views.wait(job_id))
    except (RedisUnavailable, TimeoutError):
        return KEEP_ALIVE


def comment(wait: Wait | None) -> bytes:
    """Return the comment of a job that waits as `wait` says, or that doesn't wait."""
    if wait is None:
        return KEEP_ALIVE
    text = f"waiting, position {wait.position} of {wait.num_waiting}"
    if wait.estimated_s is not None:
        text += f", about {math.ceil(wait.estimated_s)} s"
    return sse_comment(text)
