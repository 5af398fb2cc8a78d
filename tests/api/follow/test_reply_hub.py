"""The inboxes of a front end's jobs, its reports that it is alive, and those about its clients."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import cast
from unittest.mock import Mock

import pytest
from api_support import RunningApp, until
from queue_support import API, LIMITS, eventually, make_job
from structlog.testing import capture_logs

from api.answers.parts import Following
from api.app import create_app
from api.follow import cancel_queue, presence
from api.follow.cancel_queue import CancelQueue
from api.follow.presence import Presence
from api.follow.reply_hub import ClientGone, Inbox, ReplyHub, ServerStopping, max_events
from shared.errors import ErrorCode, JobError, RedisUnavailable
from shared.protocol.events import Admitted, End, Event, Retry, Tokens
from shared.protocol.ids import ApiId, JobId
from shared.protocol.jobs import JobState
from shared.settings import ApiSettings
from shared.store.jobs.queue import Queue
from shared.store.jobs.sweep import RETURN_MS
from shared.store.jobs.token_streams import ReplyReader
from shared.store.processes import Processes
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

ID = JobId("j")
ADMITTED = Admitted(job=ID, try_=1, prompt_tokens=3)
RETRY = Retry(job=ID, try_=1)
END = End(job=ID, try_=2, state=JobState.DONE)


def tokens(index: int, choice: int = 0) -> Tokens:
    return Tokens(job=ID, try_=1, choice=choice, index=index, ids=(index,), text="x")


def fill(inbox: Inbox, num_choices: int) -> list[Event]:
    """Put as many token events as fit, and return them."""
    events: list[Event] = [tokens(index) for index in range(max_events(num_choices))]
    for event in events:
        inbox.put(event)
    return events


async def test_events_that_fit_are_returned_once_and_in_order() -> None:
    inbox = Inbox(num_choices=1)
    events = fill(inbox, 1)
    assert await inbox.get(1) == events
    assert await inbox.get(0) == []
    assert fill(inbox, 1) == await inbox.get(1)


async def test_of_the_tokens_that_do_not_fit_the_newest_of_each_choice_are_kept() -> None:
    inbox = Inbox(num_choices=2)
    events = fill(inbox, 2)
    for index in range(1000, 2000):
        inbox.put(tokens(index, choice=index % 2))
    assert await inbox.get(1) == [*events, tokens(1998, choice=0), tokens(1999, choice=1)]
    inbox.put(tokens(2000))
    assert await inbox.get(1) == [tokens(2000)]


@pytest.mark.parametrize("event", [ADMITTED, RETRY, END])
async def test_events_other_than_tokens_always_fit_and_keep_their_order(event: Event) -> None:
    inbox = Inbox(num_choices=1)
    events = fill(inbox, 1)
    for index in (1000, 1001):
        inbox.put(tokens(index))
    inbox.put(event)
    for index in (1002, 1003):
        inbox.put(tokens(index))
    assert await inbox.get(1) == [*events, tokens(1001), event, tokens(1003)]


@pytest.fixture
def hub() -> ReplyHub:
    return ReplyHub(cast(ReplyReader, None))


async def test_a_hub_that_stops_interrupts_open_inboxes_and_later_ones(hub: ReplyHub) -> None:
    with hub.open(ID, 1) as first:
        hub.stop()
        with pytest.raises(ServerStopping):
            await first.get(5)
    with hub.open(ID, 1) as later, pytest.raises(ServerStopping):
        await later.get(5)


async def test_an_outage_of_redis_is_noted_in_every_inbox_once() -> None:
    class FailingReader:
        is_down = True

        async def read(self) -> list[Event]:
            await asyncio.sleep(0)
            if self.is_down:
                self.is_down = False
                raise RedisUnavailable("scripted")
            return []

    hub = ReplyHub(cast(ReplyReader, FailingReader()))
    with hub.open(ID, 1) as inbox:
        running = asyncio.create_task(hub.run())
        assert await inbox.get(5) == []
        running.cancel()
        assert inbox.take_outage()
        assert not inbox.take_outage()


DAY_MS = 86_400_000


@pytest.fixture
async def running(
    queue: Queue, hub: ReplyHub, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Presence]:
    monkeypatch.setattr(presence, "BEAT_S", 0.01)
    monkeypatch.setattr(presence, "AWAY_S", 0.01)
    cancels = CancelQueue(queue, hub, API, grace_ms=0)
    one = Presence(queue, hub, cancels, Processes(redis, keys), API)
    tasks = [asyncio.create_task(loop.run()) for loop in (one, cancels)]
    yield one
    for task in tasks:
        task.cancel()


async def test_a_running_front_end_reports_that_it_is_alive(
    server: RunningApp, redis: Redis, keys: Keys
) -> None:
    assert await eventually(lambda: redis.zscore(keys.apis, server.pool.part(Following).api_id))


async def test_only_an_app_of_its_own_process_reports_incidents(
    settings: ApiSettings, redis: Redis, keys: Keys
) -> None:
    for is_internal, num_processes in ((True, 0), (False, 1)):
        app = create_app(settings, is_internal=is_internal)
        async with app.router.lifespan_context(app):
            await eventually(partial(has_entries, redis, keys.apis, 2 - is_internal))
            assert await redis.zcard(keys.processes) == num_processes


async def has_entries(redis: Redis, key: str, number: int) -> bool:
    return await redis.zcard(key) == number


async def test_a_front_end_that_counted_as_dead_is_attached_to_its_jobs_again(
    queue: Queue, hub: ReplyHub, running: Presence, redis: Redis, keys: Keys
) -> None:
    await eventually(lambda: redis.zscore(keys.apis, API))
    job, left = make_job(), make_job()
    for each in (job, left):
        await queue.enqueue(each, LIMITS)
        await redis.zadd(keys.abandoned, {each.id: 10**15})
    with hub.open(job.id, 1):
        await redis.zincrby(keys.apis, -DAY_MS / 2, API)

        async def is_kept() -> bool:
            return await redis.zscore(keys.abandoned, job.id) is None

        await eventually(is_kept)
    assert await redis.zscore(keys.abandoned, left.id) is not None


async def test_reports_go_on_after_an_outage_of_redis(
    queue: Queue,
    running: Presence,
    redis: Redis,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    num_failures = 0

    async def fail(api: ApiId, *, is_internal: bool) -> bool:
        nonlocal num_failures
        num_failures += 1
        raise RedisUnavailable("scripted")

    async def has_failed() -> bool:
        return num_failures > 1

    with monkeypatch.context() as patched:
        patched.setattr(queue, "beat_api", fail)
        await eventually(has_failed)
    await redis.delete(keys.apis)
    await eventually(lambda: redis.zscore(keys.apis, API))


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
def fake() -> FakeQueue:
    return FakeQueue()


@pytest.fixture
def cancels(fake: FakeQueue, hub: ReplyHub) -> CancelQueue:
    return CancelQueue(cast(Queue, fake), hub, API, grace_ms=5000)


async def processed(cancels: CancelQueue, fake: FakeQueue, num_calls: int) -> None:
    running = asyncio.create_task(cancels.run())
    await until(lambda: len(fake.calls) == num_calls)
    running.cancel()


async def test_calls_are_made_in_order_and_wait_for_redis(
    cancels: CancelQueue, fake: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancel_queue, "RETRY_S", 0.001)
    fake.num_failures = 3
    cancels.abandon(ONE)
    cancels.add(TWO, ERROR)
    await processed(cancels, fake, 2)
    assert fake.calls == [("abandon", ONE, API, 5000), ("cancel", TWO, ERROR)]


async def test_a_job_that_another_client_follows_is_not_abandoned(
    cancels: CancelQueue, fake: FakeQueue, hub: ReplyHub
) -> None:
    with hub.open(ONE, 1):
        cancels.abandon(ONE)
        cancels.add(TWO)
        await processed(cancels, fake, 1)
    assert fake.calls == [("cancel", TWO, None)]
    cancels.abandon(ONE)
    await processed(cancels, fake, 2)
    assert fake.calls[1:] == [("abandon", ONE, API, 5000)]


async def finished(cancels: CancelQueue) -> None:
    running = asyncio.create_task(cancels.run())
    await cancels.finish()
    running.cancel()


async def test_a_process_that_stops_gives_all_its_clients_time_to_come_back(
    cancels: CancelQueue, fake: FakeQueue, hub: ReplyHub
) -> None:
    with cancels.client(TWO, 1):
        with cancels.client(ONE, 1) as inbox:
            hub.stop()
            inbox.interrupt(ClientGone())  # the client leaves after its last event
        await finished(cancels)
    assert fake.calls == [("abandon", job, API, RETURN_MS) for job in (ONE, TWO)]


async def test_a_longer_grace_period_also_counts_when_the_process_stops(
    fake: FakeQueue, hub: ReplyHub
) -> None:
    cancels = CancelQueue(cast(Queue, fake), hub, API, grace_ms=2 * RETURN_MS)
    with cancels.client(ONE, 1):
        hub.stop()
    await finished(cancels)
    assert fake.calls == [("abandon", ONE, API, 2 * RETURN_MS)]


async def test_stopping_does_not_wait_long_for_redis(
    cancels: CancelQueue, fake: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancel_queue, "FINISH_S", 0.01)
    fake.num_failures = 1000
    cancels.abandon(ONE)
    await finished(cancels)
    assert fake.calls == []


async def test_only_a_job_with_a_client_is_attached(
    cancels: CancelQueue, fake: FakeQueue, hub: ReplyHub
) -> None:
    cancels.attach(ONE)
    with hub.open(TWO, 1):
        cancels.attach(TWO)
        await processed(cancels, fake, 1)
    assert fake.calls == [("attach", TWO, API)]


async def test_reports_that_are_dropped_or_fail_are_logged_with_their_action(
    fake: FakeQueue, hub: ReplyHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancel_queue, "MAX_PENDING", 1)
    monkeypatch.setattr(fake, "_record", Mock(side_effect=ValueError("unexpected")))
    cancels = CancelQueue(cast(Queue, fake), hub, API, grace_ms=5000)
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
