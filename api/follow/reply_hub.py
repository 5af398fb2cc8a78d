"""Passes each event of this process's reply stream to the followers of the event's job."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from shared.errors import RedisUnavailable
from shared.protocol.events import Event, Tokens
from shared.protocol.ids import JobId
from shared.store.jobs.token_streams import ReplyReader

RETRY_READ_S = 0.2
MAX_EVENTS = 64
MAX_EVENTS_PER_CHOICE = 4
"""Number of events that each choice of a job adds to the maximum length of the job's inbox."""

log = structlog.get_logger()


class ClientGone(Exception):
    """The client has closed its connection."""


class ServerStopping(Exception):
    """This process is stopping, so the client has to follow its job elsewhere."""


class Inbox:
    """Bounded FIFO queue of the events of one job.

    If the client reads too slowly, the queue fills up. While it is full, only the newest of the
    further token events of each choice is kept. The index of this event shows the follower that
    tokens are missing, and the follower reads them from the checkpoints.
    """

    def __init__(self, num_choices: int) -> None:
        self._max_events = max_events(num_choices)
        self._events: deque[Event] = deque()
        self._newest: dict[int, Tokens] = {}
        """For each choice, the newest of its events that didn't fit into `_events`."""
        self._interruption: ClientGone | ServerStopping | None = None
        self._had_outage = False
        self._wake = asyncio.Event()

    def put(self, event: Event) -> None:
        """Add an event. If token events don't fit, keep only the newest event of each choice."""
        if isinstance(event, Tokens) and len(self._events) >= self._max_events:
            self._newest[event.choice] = event
        else:
            self._events.extend(self._newest.values())  # keeps the order of arrival
            self._newest.clear()
            self._events.append(event)
        self._wake.set()

    def interrupt(self, reason: ClientGone | ServerStopping) -> None:
        """Make the current and all later calls of `get` raise `reason`. The first reason stays."""
        self._interruption = self._interruption or reason
        self._wake.set()

    @property
    def is_handed_over(self) -> bool:
        """Whether this process stops before the inbox's client has its whole answer."""
        return isinstance(self._interruption, ServerStopping)

    def note_outage(self) -> None:
        """Record that Redis was unavailable, and make the current call of `get` return."""
        self._had_outage = True
        self._wake.set()

    def take_outage(self) -> bool:
        """Return whether Redis was unavailable since the last call of this method."""
        had_outage, self._had_outage = self._had_outage, False
        return had_outage

    async def get(self, timeout_s: float) -> list[Event]:
        """Remove and return all events. If no event is present, wait up to `timeout_s` seconds.

        Also returns after an outage of Redis.

        Raises:
            ClientGone: the client has closed its connection.
            ServerStopping: this process stops.
        """
        if not self._wake.is_set() and timeout_s > 0:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._wake.wait()
            except TimeoutError:
                return []
        if self._interruption:
            raise self._interruption
        self._wake.clear()
        events = [*self._events, *self._newest.values()]
        self._events.clear()
        self._newest.clear()
        return events


def max_events(num_choices: int) -> int:
    """Return the limit on the number of one job's waiting events.

    The limit applies to the inbox and, separately, to `Progress.pending`.
    """
    return MAX_EVENTS + MAX_EVENTS_PER_CHOICE * num_choices


class ReplyHub:
    """Reads the reply stream of this process and puts each event into the inboxes of its job."""

    def __init__(self, reader: ReplyReader) -> None:
        self._reader = reader
        self._inboxes: dict[JobId, list[Inbox]] = {}
        self._is_stopping = False
        self._is_redis_down = False

    @contextmanager
    def open(self, job_id: JobId, num_choices: int) -> Iterator[Inbox]:
        """Open an inbox for the events of a job. A job can have several inboxes.

        Callers must open it before they queue the job or attach this process to it.
        """
        inbox = Inbox(num_choices)
        if self._is_stopping:
            inbox.interrupt(ServerStopping())
        self._inboxes.setdefault(job_id, []).append(inbox)
        try:
            yield inbox
        finally:
            self._inboxes[job_id].remove(inbox)
            if not self._inboxes[job_id]:
                del self._inboxes[job_id]

    @property
    def jobs(self) -> list[JobId]:
        """Jobs with an open inbox."""
        return [*self._inboxes]

    def has_inbox(self, job_id: JobId) -> bool:
        """Return whether an inbox of the job is open, which means that a client waits for it."""
        return job_id in self._inboxes

    def stop(self) -> None:
        """Interrupt all open inboxes with `ServerStopping`, and later ones when they are opened."""
        self._is_stopping = True
        for inboxes in self._inboxes.values():
            for inbox in inboxes:
                inbox.interrupt(ServerStopping())

    async def run(self) -> None:
        """Read and distribute events until this task is cancelled.

        After an outage of Redis, reading resumes after the last event that was read.
        """
        while True:
            try:
                events = await self._reader.read()
            except RedisUnavailable as error:
                if not self._is_redis_down:
                    log.warning("redis_lost", reason=str(error))
                self._is_redis_down = True
                await asyncio.sleep(RETRY_READ_S)
                continue
            except Exception:
                log.exception("reply_unreadable")
                await asyncio.sleep(RETRY_READ_S)
                continue
            self._log_back()
            for event in events:
                for inbox in self._inboxes.get(event.job, ()):
                    inbox.put(event)

    def _log_back(self) -> None:
        if self._is_redis_down:
            log.info("redis_back")
            for inbox in (inbox for inboxes in self._inboxes.values() for inbox in inboxes):
                inbox.note_outage()
        self._is_redis_down = False
