"""The inboxes of a front end's jobs, and its reports that it is alive."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest
from api_support import RunningApp
from queue_support import API, LIMITS, eventually, make_job

from api.answers.parts import Following
from api.follow import presence
from api.follow.cancel_queue import CancelQueue
from api.follow.presence import Presence
from api.follow.reply_hub import Inbox, ReplyHub, ServerStopping, max_events
from shared.errors import RedisUnavailable
from shared.protocol.events import Admitted, End, Event, Retry, Tokens
from shared.protocol.ids import ApiId, JobId
from shared.protocol.jobs import JobState
from shared.store.jobs.queue import Queue
from shared.store.jobs.token_streams import ReplyReader
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


class FakeReader:
    """Stands in for `ReplyReader`: returns each event once."""

    def __init__(self, *events: Event) -> None:
        self._events = [*events]

    async def read(self) -> list[Event]:
        await asyncio.sleep(0)
        events, self._events = self._events, []
        return events


async def test_a_hub_that_stops_interrupts_open_inboxes_and_later_ones() -> None:
    hub = ReplyHub(cast(ReplyReader, FakeReader()))
    with hub.open(ID, 1) as first:
        hub.stop()
        with pytest.raises(ServerStopping):
            await first.get(5)
    with hub.open(ID, 1) as later, pytest.raises(ServerStopping):
        await later.get(5)


async def test_an_outage_of_redis_is_noted_in_every_inbox_once() -> None:
    class FailingReader(FakeReader):
        is_down = True

        async def read(self) -> list[Event]:
            if self.is_down:
                self.is_down = False
                raise RedisUnavailable("scripted")
            return await super().read()

    hub = ReplyHub(cast(ReplyReader, FailingReader()))
    with hub.open(ID, 1) as inbox:
        running = asyncio.create_task(hub.run())
        assert await inbox.get(5) == []
        running.cancel()
        assert inbox.take_outage()
        assert not inbox.take_outage()


DAY_MS = 86_400_000


@pytest.fixture
def hub() -> ReplyHub:
    return ReplyHub(cast(ReplyReader, None))


@pytest.fixture
async def running(
    queue: Queue, hub: ReplyHub, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Presence]:
    monkeypatch.setattr(presence, "BEAT_S", 0.01)
    cancels = CancelQueue(queue, hub, API, grace_ms=0)
    one = Presence(queue, hub, cancels, API)
    tasks = [asyncio.create_task(loop.run()) for loop in (one, cancels)]
    yield one
    for task in tasks:
        task.cancel()


async def test_a_running_front_end_reports_that_it_is_alive(
    server: RunningApp, redis: Redis, keys: Keys
) -> None:
    assert await eventually(lambda: redis.zscore(keys.apis, server.pool.part(Following).api_id))


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

    async def fail(api: ApiId) -> bool:
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
