"""Ends jobs of workers, and confirms that the ends are durable."""

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from shared.protocol.codec import encode_events, encode_result
from shared.protocol.events import End
from shared.protocol.ids import WorkerId
from shared.protocol.jobs import JobState
from shared.protocol.queue_replies import FinishOutcome
from shared.protocol.results import Result
from shared.store.redis.durability import Durability
from shared.store.redis.pool_store import PoolStore
from shared.store.redis.scripts import Arg


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job that a worker ends, with its final event and its result."""

    wid: WorkerId
    end: End
    result: Result
    claim_epoch: int = 0
    """Epoch of the job's claim; 0 matches any claim."""


class EndedJobs(PoolStore):
    """Ends the jobs of one pool's workers."""

    async def finish(self, job: EndedJob) -> FinishOutcome:
        """Store the result of a job and publish its final event. The call may be repeated."""
        outcome = await self._scripts.run("finish", *_finish_args(job))
        return FinishOutcome(outcome.decode())

    async def confirm(self, jobs: Sequence[EndedJob], durability: Durability) -> None:
        """Wait until all `jobs` have ended and their ends are durable.

        Jobs that still run are ended again, because a failover may have lost their ends. All calls
        use one connection, so that they reach the same server.

        Raises:
            RedisUnavailable: Redis can't be reached, or too few copies exist within the time limit.
        """
        async with self._redis.client() as connection:
            pipe = connection.pipeline(transaction=False)
            for job in jobs:
                pipe.hget(self._keys.job(job.end.job), "state")
            states = await pipe.execute()
            for job, state in zip(jobs, states, strict=True):
                if state == JobState.RUNNING.encode():
                    await self._scripts.run_on(connection, "finish", *_finish_args(job))
            await self._scripts.confirm(connection, durability)


def _finish_args(job: EndedJob) -> tuple[Arg, ...]:
    """Return the arguments of `finish.lua`, in the order of its ARGV."""
    end, usage = job.end, job.end.usage
    return (
        *(job.wid, end.job, end.try_, job.claim_epoch, end.state),
        *(orjson.dumps(usage), orjson.dumps(end.error)),
        usage.prompt_tokens + usage.completion_tokens if usage else "",
        *(encode_events([end]), encode_result(job.result), int(_may_be_retried(end))),
    )


def _may_be_retried(end: End) -> bool:
    """Return whether an operator may enqueue the job again: only if a server error ended it."""
    return end.state is JobState.FAILED and end.error is not None and end.error.status >= 500
