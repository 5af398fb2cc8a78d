"""Jobs and workers without an engine, for tests of the queue."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from shared.errors import ErrorCode, JobError, RedisUnavailable
from shared.protocol.adapters import Adapter
from shared.protocol.capabilities import EVERYTHING, Capabilities, encode_capabilities
from shared.protocol.enqueue import QueueLimits
from shared.protocol.events import End, Tokens
from shared.protocol.ids import AdapterVersion, ApiId, JobId, WorkerId
from shared.protocol.jobs import ClaimedJob, Endpoint, Job, JobState, SamplingParams
from shared.protocol.queue_replies import FinishOutcome
from shared.protocol.results import Result, Usage
from shared.protocol.workers import WorkerInfo
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

API = ApiId("api-1")
INFO = WorkerInfo(
    model="m", device="cpu", dtype="float32", version="0", max_num_seqs=8, kv_tokens=100_000
)
LIMITS = QueueLimits(
    max_waiting=1000, max_waiting_adapter=1000, max_waiting_tenant=1000, retain_ms=60_000
)
NEVER_MS = 10**9


def make_job(version: str = "a@1", *, n: int = 1, **changes: Any) -> Job:
    fields: dict[str, Any] = {
        "id": JobId(uuid.uuid4().hex),
        "endpoint": Endpoint.COMPLETIONS,
        "model": version.split("@")[0],
        "version": version,
        "sampling": SamplingParams(seed=1, n=n),
        "created_s": 0,
        "deadline_ms": 60_000,
        "cost": 10,
        "reply_to": API,
        "prompts": ("hello",),
    }
    return Job(**{**fields, **changes})


def make_adapter(version: str, **changes: Any) -> Adapter:
    fields: dict[str, Any] = {
        "name": version.split("@")[0],
        "version": AdapterVersion(version),
        "digest": "0" * 64,
        "weights_digest": "1" * 64,
        "source": "org/adapter",
        "rank": 8,
        "num_bytes": 1000,
        "created_s": 0,
    }
    return Adapter(**{**fields, **changes})


def tokens(job: Job, index: int, ids: Sequence[int], text: str = "", **changes: Any) -> Tokens:
    fields: dict[str, Any] = {"try_": 1, "choice": 0, **changes}
    return Tokens(job=job.id, index=index, ids=tuple(ids), text=text, **fields)


class Actor:
    """Worker without an engine, whose calls the test makes."""

    def __init__(
        self,
        queue: Queue,
        redis: Redis,
        keys: Keys,
        name: str,
        holds: list[str],
        serves: Capabilities = EVERYTHING,
    ) -> None:
        self.serves, self.info = serves, replace(INFO, serves=serves)
        self.queue, self.redis, self.keys = queue, redis, keys
        self.views = PoolViews(redis, keys)
        self.id = WorkerId(name)
        self.holds = holds

    async def register(self, *, lease_ms: int = 60_000) -> "Actor":
        await self.queue.register(self.id, lease_ms=lease_ms, info=self.info, residents=self.holds)
        return self

    async def try_claim(self, **changes: Any) -> Any:
        capacity = {"sequences": 8, "tokens": 10_000, "steal_ms": NEVER_MS, "max_cold": 0}
        capacity |= {"load_ms": NEVER_MS, "serves": self.serves}
        return await self.queue.claim(self.id, **{**capacity, "residents": self.holds, **changes})

    async def claim(self, **changes: Any) -> list[ClaimedJob]:
        return list((await self.try_claim(**changes)).jobs)

    async def claim_ids(self, **changes: Any) -> list[JobId]:
        return [claimed.job.id for claimed in await self.claim(**changes)]

    async def finish(
        self, claimed: ClaimedJob, state: JobState = JobState.DONE, *, used: int | None = None
    ) -> FinishOutcome:
        spent = claimed.job.cost if used is None else used
        usage = Usage(prompt_tokens=spent, completion_tokens=0)
        end = End(job=claimed.job.id, try_=claimed.try_, state=state, usage=usage)
        result = Result(job=claimed.job.id, state=state, usage=usage)
        return await self.queue.finish(self.id, end, result, claim_epoch=claimed.claim_epoch)

    async def fail(self, claimed: ClaimedJob, code: ErrorCode) -> FinishOutcome:
        error = JobError(code=code, message="it failed")
        end = End(job=claimed.job.id, try_=claimed.try_, state=JobState.FAILED, error=error)
        result = Result(job=claimed.job.id, state=JobState.FAILED, error=error)
        return await self.queue.finish(self.id, end, result, claim_epoch=claimed.claim_epoch)

    async def die(self) -> None:
        """Let the lease end, and let two sweeps notice it."""
        await self.queue.beat(self.id, lease_ms=0, info=self.info)
        for _ in range(2):
            await self.queue.reap()

    @property
    def idle_key(self) -> str:
        """Set of the parked workers that serve the same jobs."""
        return self._of_class(self.keys.idle)

    @property
    def capacity_key(self) -> str:
        """Set of the capacities of the workers that serve the same jobs."""
        return self._of_class(self.keys.capacity)

    async def die_of(self, job: Job, *, times: int = 3) -> None:
        """Run a job alone, die of it and start again. After three times, the job is dead."""
        for _ in range(times):
            assert await self.claim_ids(sequences=1) == [job.id]
            await self.die()
            await self.register()

    async def is_parked(self) -> bool:
        return await self.redis.zscore(self.idle_key, self.id) is not None

    def _of_class(self, key: str) -> str:
        name = encode_capabilities(self.serves)
        return f"{key}:{name}" if name else key


async def eventually(condition: Callable[[], Any], within_s: float = 60) -> Any:
    """Wait until `condition`, a plain or async function, returns a true value, and return it.

    On a busy machine, even Redis may not answer in time. The condition isn't met then.
    """
    deadline = time.monotonic() + within_s
    while True:
        with suppress(RedisUnavailable):
            value = condition()
            value = await value if isinstance(value, Awaitable) else value
            if value:
                return value
        assert time.monotonic() < deadline, "the condition wasn't met in time"
        await asyncio.sleep(0.005)
