"""Cancellations and departures of clients that wait for Redis."""

import asyncio
from typing import cast

import pytest
from api_support import until
from structlog.testing import capture_logs

from api.follow import cancel_queue
from api.follow.cancel_queue import CancelQueue
from api.follow.reply_hub import ClientGone, ReplyHub
from shared.errors import ErrorCode, JobError, RedisUnavailable
from shared.protocol.ids import ApiId, JobId
from shared.store.jobs.queue import Queue
from shared.store.jobs.sweep import RETURN_MS
from shared.store.jobs.token_streams import ReplyReader

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

    async def attach(self, job_id: JobId, api: ApiId) -> None:
        self._record("attach", job_id, api)

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


async def test_a_client_that_leaves_abandons_its_job(
    cancels: CancelQueue, queue: FakeQueue
) -> None:
    with cancels.client(ONE, 1):
        raise ClientGone
    with cancels.client(TWO, 1):
        pass  # it got its whole answer
    await finished(cancels)
    assert queue.calls == [("abandon", ONE, "api", 5000)]


async def finished(cancels: CancelQueue) -> None:
    running = asyncio.create_task(cancels.run())
    await cancels.finish()
    running.cancel()


async def test_a_process_that_stops_gives_all_its_clients_time_to_come_back(
    cancels: CancelQueue, queue: FakeQueue, hub: ReplyHub
) -> None:
    with cancels.client(TWO, 1):
        with cancels.client(ONE, 1) as inbox:
            hub.stop()
            inbox.interrupt(ClientGone())  # the client leaves after its last event
        await finished(cancels)
    assert queue.calls == [("abandon", job, "api", RETURN_MS) for job in (ONE, TWO)]


async def test_a_longer_grace_period_also_counts_when_the_process_stops(
    queue: FakeQueue, hub: ReplyHub
) -> None:
    cancels = CancelQueue(cast(Queue, queue), hub, ApiId("api"), grace_ms=2 * RETURN_MS)
    with cancels.client(ONE, 1):
        hub.stop()
    await finished(cancels)
    assert queue.calls == [("abandon", ONE, "api", 2 * RETURN_MS)]


async def test_stopping_does_not_wait_long_for_redis(
    cancels: CancelQueue, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancel_queue, "FINISH_S", 0.01)
    queue.num_failures = 1000
    cancels.abandon(ONE)
    await finished(cancels)
    assert queue.calls == []


async def test_only_a_job_with_a_client_is_attached(
    cancels: CancelQueue, queue: FakeQueue, hub: ReplyHub
) -> None:
    cancels.attach(ONE)
    with hub.open(TWO, 1):
        cancels.attach(TWO)
        await processed(cancels, queue, 1)
    assert queue.calls == [("attach", TWO, "api")]


async def test_reports_that_are_dropped_or_fail_are_logged_with_their_action(
    queue: FakeQueue, hub: ReplyHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancel_queue, "MAX_PENDING", 1)
    monkeypatch.setattr(queue, "_record", _raise)
    cancels = CancelQueue(cast(Queue, queue), hub, ApiId("api"), grace_ms=5000)
    with capture_logs() as logs:
        cancels.abandon(ONE)
        cancels.add(TWO)
        task = asyncio.create_task(cancels.run())
        await until(lambda: len(logs) == 2)
        task.cancel()
    assert [(line["event"], line["action"], line["job_id"]) for line in logs] == [
        ("report_dropped", "cancel", TWO),
        ("report_failed", "abandon", ONE),
    ]


def _raise(*_: object) -> None:
    raise ValueError("unexpected")
