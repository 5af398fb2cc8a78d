"""Pools and jobs for measuring the queue without engines."""

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from shared.protocol.enqueue import QueueLimits
from shared.protocol.events import Tokens
from shared.protocol.ids import AdapterVersion, ApiId, JobId
from shared.protocol.jobs import ClaimedJob, Endpoint, Job, SamplingParams
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis, connect
from shared.store.redis.keys import Keys

API = ApiId("bench")
LEASE_MS = 600_000
"""Lease duration that outlasts every measurement, so that no heartbeats are needed."""
LIMITS = QueueLimits(
    max_waiting=10**6, max_waiting_adapter=10**6, max_waiting_tenant=10**6, retain_ms=60_000
)
MAX_CONNECTIONS = 128


def new_pool() -> str:
    """Return a unique pool name."""
    return f"bench-{uuid.uuid4().hex[:12]}"


@asynccontextmanager
async def own_pool(url: str, pool: str) -> AsyncIterator[tuple[Queue, Redis]]:
    """Provide a queue and a Redis client for `pool`, and delete the pool's keys after the block."""
    redis, keys = connect(url, max_connections=MAX_CONNECTIONS), Keys(pool)
    try:
        yield Queue(redis, keys), redis
    finally:
        async for key in redis.scan_iter(match=f"{keys.prefix}*", count=1000):
            await redis.delete(key)
        await redis.aclose()


def synthetic_job(version: AdapterVersion, num_words: int, **changes: Any) -> Job:
    """Return a new job for `version`, with a prompt of `num_words` words.

    `changes` override fields of the job.
    """
    fields: dict[str, Any] = {
        "id": JobId(uuid.uuid4().hex),
        "endpoint": Endpoint.COMPLETIONS,
        "model": version.partition("@")[0],
        "version": version,
        "sampling": SamplingParams(seed=0, max_tokens=1),
        "created_s": int(time.time()),
        "deadline_ms": LEASE_MS,
        "cost": num_words + 1,
        "reply_to": API,
        "prompts": ("word " * num_words,),
    }
    return Job(**{**fields, **changes})


def first_token(claimed: ClaimedJob) -> Tokens:
    """Return the event that publishes the first token of a claimed job."""
    return Tokens(job=claimed.job.id, try_=claimed.try_, choice=0, index=0, ids=(1,), text=" word")
