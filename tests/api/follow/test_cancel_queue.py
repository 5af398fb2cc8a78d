"""Cancellations and departures of clients that wait for Redis."""

import asyncio
from typing import cast

import pytest
from api_support import until

from api.follow import cancel_queue
from api.follow.cancel_queue import CancelQueue
from api.follow.reply_hub import ReplyHub
from shared.errors import ErrorCode, JobError, RedisUnavailable
from shared.protocol.ids import ApiId, JobId
from shared.store.queue import Queue
from shared.store.token_streams import ReplyReader

ONE, TWO = JobId("one"), JobId("two")
ERROR = JobError(code=ErrorCode.DEADLINE_EXCEEDED, message="late")


class FakeQueue:
    """Records calls. The first `num_failures` calls fail."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.num_failures = 0

    async def cancel(self, job_id: JobId, *, error: JobError | None) -> None:
        self._record("cancel", job_id, error)

    async def abandon(self, job_id: JobId, api: ApiId, *, grace_ms: int) -> None:
        self._record("abandon", job_id, api, grace_ms)

    def _record(self, *call: object) -> None:
        if self.num_failures:
            self.num_failures -= 1
            raise RedisUnavailable("away")
        self.calls.append(call)


@pytest.fixture
def queue() -> FakeQueue:
    return FakeQueue()


@pytest.fixture
def hub() -> ReplyHub:
    return ReplyHub(cast(ReplyReader, None))


@pytest.fixture
def cancels(queue: FakeQueue, hub: ReplyHub) -> CancelQueue:
    return CancelQueue(cast(Queue, queue), hub, ApiId("api"), grace_ms=5000)


async def processed(cancels: CancelQueue, queue: FakeQueue, num_calls: int) -> None:
    running = asyncio.create_task(cancels.run())
    await until(lambda: len(queue.calls) == num_calls)
    running.cancel()


async def test_calls_are_made_in_order_and_wait_for_redis(
    cancels: CancelQueue, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancel_queue, "RETRY_S", 0.001)
    queue.num_failures = 3
    cancels.abandon(ONE)
    cancels.add(TWO, ERROR)
    await processed(cancels, queue, 2)
    assert queue.calls == [("abandon", ONE, "api", 5000), ("cancel", TWO, ERROR)]


async def test_a_job_that_another_client_follows_is_not_abandoned(
    cancels: CancelQueue, queue: FakeQueue, hub: ReplyHub
) -> None:
    with hub.open(ONE, 1):
        cancels.abandon(ONE)
        cancels.add(TWO)
        await processed(cancels, queue, 1)
    assert queue.calls == [("cancel", TWO, None)]
    cancels.abandon(ONE)
    await processed(cancels, queue, 2)
    assert queue.calls[1:] == [("abandon", ONE, "api", 5000)]
