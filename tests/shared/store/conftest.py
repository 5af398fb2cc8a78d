"""Fixtures of the tests of the store. Their classes are in tests/support/queue_support.py."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from adapter_versions import BASE
from queue_support import API, INFO, LIMITS, Actor, make_job

from shared.protocol.capabilities import EVERYTHING, Capabilities
from shared.protocol.codec import decode_events
from shared.protocol.enqueue import QueueLimits
from shared.protocol.events import Event
from shared.protocol.ids import ApiId
from shared.protocol.jobs import Job
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys


@pytest.fixture
def actor(queue: Queue, redis: Redis, keys: Keys) -> Callable[..., Awaitable[Actor]]:
    """Return a function that registers a worker: `await actor("w1", holds=["a@1"])`."""

    async def start(
        name: str = "w1",
        *,
        holds: Sequence[str] = ("a@1",),
        serves: Capabilities = EVERYTHING,
        kv_tokens: int = INFO.kv_tokens,
        **changes: Any,
    ) -> Actor:
        worker = Actor(queue, redis, keys, name, list(holds), serves)
        worker.info = replace(worker.info, kv_tokens=kv_tokens)
        return await worker.register(**changes)

    return start


@pytest.fixture
def enqueue(queue: Queue) -> Callable[..., Awaitable[Job]]:
    """Return a function that enqueues a new job: `await enqueue("a@1", tenant="t")`."""

    async def put(version: str = "a@1", *, limits: QueueLimits = LIMITS, **changes: Any) -> Job:
        job = make_job(version, **changes)
        await queue.enqueue(job, limits)
        return job

    return put


@pytest.fixture
async def registry(redis: Redis, keys: Keys) -> Registry:
    """Registry with the base model `base@1`."""
    registry = Registry(redis, keys)
    await registry.set_base(BASE)
    return registry


@pytest.fixture
def events(redis: Redis, keys: Keys) -> Callable[..., Awaitable[list[Event]]]:
    """Return a function that reads all events of a reply stream, or those of one job."""

    async def read(job: Job | None = None, api: ApiId = API) -> list[Event]:
        entries = await redis.xrange(keys.replies(api))
        found = [event for _, fields in entries for event in decode_events(fields[b"e"])]
        return [event for event in found if job is None or event.job == job.id]

    return read
