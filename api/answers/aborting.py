"""Ends several jobs of one tenant at once."""

import asyncio
from collections.abc import Sequence

from api.pools.pool import Pool
from shared.errors import JobError
from shared.protocol.ids import JobId
from shared.store.jobs.queue import Queue

AT_ONCE = 32
"""Number of jobs that are cancelled at the same time."""


async def abort(pool: Pool, ids: Sequence[JobId], error: JobError) -> int:
    """Cancel jobs with `error` as the reason, and return their number.

    Raises:
        RedisUnavailable: Redis can't be reached. Perhaps some of the jobs were cancelled.
    """
    queue = pool.part(Queue)
    for first in range(0, len(ids), AT_ONCE):
        some = ids[first : first + AT_ONCE]
        await asyncio.gather(*(queue.cancel(job_id, error=error) for job_id in some))
    return len(ids)
