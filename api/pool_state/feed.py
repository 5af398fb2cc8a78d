"""Streams of server-sent events about the pool. All streams of a front end share one reader."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import structlog

from api.http.errors import job_error_body
from api.pool_state.incident_text import incident_body
from api.pool_state.rates import Point
from api.pool_state.state import PoolState
from api.render.sse import RETRY
from shared.errors import ErrorCode, JobError, RedisUnavailable
from shared.store.views.incidents import Incident

EVERY_S = 1.0
"""Seconds between two reads of the pool's state while a stream is open."""
READ_S = 5.0
"""Maximum seconds for one read. If the read takes longer, all streams get an error event."""
_OUTAGE = JobError(
    code=ErrorCode.UNAVAILABLE,
    message="Redis doesn't answer; this page goes on as soon as it is back",
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """State of the pool from one read, encoded once for all streams."""

    body: bytes
    """JSON of the state. It lacks the field `history` and the closing brace."""
    points: Sequence[Point]
    incidents: Sequence[Incident]
    """Incidents of the pool, newest first."""


@dataclass(frozen=True, slots=True, eq=False)
class _FailedRead:
    """Takes the place of a frame if the read has failed."""


class PoolFeed:
    """Reads the pool once per second while streams are open, and passes the state to all of them.

    The state is encoded once. A slow client skips states, but gets every incident and every point
    of the plots.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[PoolState]],
        body_of: Callable[[PoolState], Mapping[str, Any]],
    ) -> None:
        """Create a feed. `body_of` returns the body of a state without the field `history`."""
        self._read = read
        self._body_of = body_of
        self.num_streams = 0
        """Number of open streams."""
        self._is_wanted = asyncio.Event()
        self._has_next = asyncio.Event()
        """Set once the newest frame has a successor. Each frame has its own event."""
        self._latest: _Frame | _FailedRead | None = None
        """Newest frame. None while no stream is open."""
        self._is_stopped = False

    async def run(self) -> None:
        """Read the pool while streams are open, until this task is cancelled."""
        while True:
            await self._is_wanted.wait()
            self._publish(await self._frame())
            await asyncio.sleep(EVERY_S)
            if not self.num_streams:
                self._is_wanted.clear()
                self._latest = None

    def stop(self) -> None:
        """End all streams, including streams that are opened later."""
        self._is_stopped = True
        self._publish(_FailedRead())

    async def events(self) -> AsyncIterator[bytes]:
        """Yield the events of one stream until the feed is stopped."""
        self.num_streams += 1
        self._is_wanted.set()
        try:
            yield RETRY
            async for part in self._parts():
                yield part
        finally:
            self.num_streams -= 1

    async def _parts(self) -> AsyncIterator[bytes]:
        seen: _Frame | _FailedRead | None = None
        newest: Incident | None = None
        last_s, is_first = 0.0, True
        while (frame := await self._next(seen)) is not None:
            seen = frame
            if isinstance(frame, _FailedRead):
                yield _event("error", orjson.dumps(job_error_body(_OUTAGE)))
                continue
            if not is_first:
                for incident in _later(frame.incidents, newest):
                    yield _event("incident", orjson.dumps(incident_body(incident)))
            if frame.points and frame.points[-1][0] < last_s:
                last_s = 0.0  # Redis' clock was set back, so all points are new
            new_points = [point for point in frame.points if point[0] > last_s]
            yield _event("pool", frame.body + b',"history":' + orjson.dumps(new_points) + b"}")
            newest = frame.incidents[0] if frame.incidents else newest
            last_s, is_first = (new_points[-1][0] if new_points else last_s), False

    async def _next(self, seen: _Frame | _FailedRead | None) -> _Frame | _FailedRead | None:
        """Wait for a frame after `seen`, and return it. Return None once the feed is stopped."""
        while not self._is_stopped and (self._latest is None or self._latest is seen):
            await self._has_next.wait()
        return None if self._is_stopped else self._latest

    def _publish(self, frame: _Frame | _FailedRead) -> None:
        self._latest = frame
        published, self._has_next = self._has_next, asyncio.Event()
        published.set()

    async def _frame(self) -> _Frame | _FailedRead:
        try:
            async with asyncio.timeout(READ_S):
                state = await self._read()
            body = orjson.dumps(self._body_of(state))
            return _Frame(body.removesuffix(b"}"), state.points, state.incidents)
        except (RedisUnavailable, TimeoutError):
            return _FailedRead()
        except Exception:
            log.exception("pool_read_failed")
            return _FailedRead()


def _later(incidents: Sequence[Incident], newest: Incident | None) -> Iterator[Incident]:
    """Return the incidents that occurred after the incident `newest`, oldest first."""
    after = newest.order if newest else (0, 0)
    return (incident for incident in reversed(incidents) if incident.order > after)


def _event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
