"""The replies of this process: one reader, and an inbox for each request that waits."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from api.redis_guard import is_cancelled
from shared.errors import RedisUnavailable
from shared.protocol.events import Event, Tokens
from shared.protocol.ids import JobId
from shared.store.connection import REDIS_DOWN
from shared.store.token_streams import ReplyReader

RETRY_READ_S = 0.2
MAX_EVENTS = 64
MAX_EVENTS_PER_CHOICE = 4
"""An inbox holds the sum of both; a client that reads in time leaves a few."""

log = structlog.get_logger()


class ClientGone(Exception):
    """The client has closed its connection."""


class Inbox:
    """The events of one job, in order.

    A client that doesn't read leaves a bounded number of them here: of the tokens that don't fit,
    only the newest event of each choice is kept. It shows what is missing, and the follower reads
    that from the checkpoints.
    """

    def __init__(self, num_choices: int) -> None:
        self._max_events = max_events(num_choices)
        self._events: deque[Event] = deque()
        self._newest: dict[int, Tokens] = {}
        """By choice, of the tokens that don't fit."""
        self._is_client_gone = False
        self._wake = asyncio.Event()

    def put(self, event: Event) -> None:
        """Add an event; tokens that don't fit replace those of their choice."""
        if isinstance(event, Tokens) and len(self._events) >= self._max_events:
            self._newest[event.choice] = event
        else:
            self._events.extend(self._newest.values())  # all come in the order of their arrival
            self._newest.clear()
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
        events = [*self._events, *self._newest.values()]
        self._events.clear()
        self._newest.clear()
        return events


def max_events(num_choices: int) -> int:
    """How many events of a job are kept for a client that doesn't read, or while a gap is open."""
    return MAX_EVENTS + MAX_EVENTS_PER_CHOICE * num_choices


class Replies:
    """Hands every event of this process' reply stream to the request that waits for it."""

    def __init__(self, reader: ReplyReader) -> None:
        self._reader = reader
        self._inboxes: dict[JobId, Inbox] = {}
        self._is_down = False

    @contextmanager
    def open(self, job_id: JobId, num_choices: int) -> Iterator[Inbox]:
        """Where the job's events arrive; open it before the job is queued."""
        inbox = self._inboxes[job_id] = Inbox(num_choices)
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
