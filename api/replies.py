"""The replies of this process: one reader, and an inbox for each request that waits."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from api.redis_guard import is_cancelled
from shared.connection import REDIS_DOWN
from shared.errors import RedisUnavailable
from shared.events import Event
from shared.ids import JobId
from shared.streams import ReplyReader

RETRY_READ_S = 0.2

log = structlog.get_logger()


class ClientGone(Exception):
    """The client has closed its connection."""


class Inbox:
    """The events of one job, in order.

    It isn't bounded by itself: a slow client's inbox holds at most the answer, which the model's
    context bounds.
    """

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._is_client_gone = False
        self._wake = asyncio.Event()

    def put(self, event: Event) -> None:
        """Add an event."""
        self._events.append(event)
        self._wake.set()

    def client_gone(self) -> None:
        """Tell the reader that nobody waits any more."""
        self._is_client_gone = True
        self._wake.set()

    async def get(self, timeout_s: float) -> list[Event]:
        """All events that are here; waits for one, and is empty after `timeout_s`.

        Raises:
            ClientGone: the client has closed its connection.
        """
        if not self._wake.is_set() and timeout_s > 0:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._wake.wait()
            except TimeoutError:
                return []
        if self._is_client_gone:
            raise ClientGone
        self._wake.clear()
        events = list(self._events)
        self._events.clear()
        return events


class Replies:
    """Hands every event of this process' reply stream to the request that waits for it."""

    def __init__(self, reader: ReplyReader) -> None:
        self._reader = reader
        self._inboxes: dict[JobId, Inbox] = {}
        self._is_down = False

    @contextmanager
    def open(self, job_id: JobId) -> Iterator[Inbox]:
        """Where the job's events arrive; open it before the job is queued."""
        inbox = self._inboxes[job_id] = Inbox()
        try:
            yield inbox
        finally:
            del self._inboxes[job_id]

    async def run(self) -> None:
        """Read until cancelled. While Redis is away, waits for it and goes on where it was."""
        while not is_cancelled():
            try:
                events = await self._reader.read()
            except (RedisUnavailable, *REDIS_DOWN) as error:
                self._note_down(error)
                await asyncio.sleep(RETRY_READ_S)
                continue
            except Exception:
                log.exception("reply_unreadable")
                await asyncio.sleep(RETRY_READ_S)
                continue
            self._note_up()
            for event in events:
                if inbox := self._inboxes.get(event.job):
                    inbox.put(event)

    def _note_down(self, error: Exception) -> None:
        if not self._is_down:
            log.warning("redis_lost", reason=str(error))
        self._is_down = True

    def _note_up(self) -> None:
        if self._is_down:
            log.info("redis_back")
        self._is_down = False
