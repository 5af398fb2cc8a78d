"""Renders a job's output as a stream of typed server-sent events. Pure.

Each event has a number, which is a function of the event's position in the output. Streams of a job
therefore use the same numbers, even if they divide the output differently. The numbers increase,
with gaps. The id of an event is its number and a checksum of the output before it, for example
`570001-0a1b2c3d`.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from api.follow.transcript import Delta
from api.follow.updates import Update, deltas_of
from api.render.blocks import Added, BlockEvent, BlockReader, without_stop
from api.render.catch_up import Misplaced
from api.render.event_ids import unknown_event_id
from api.render.sse import RETRY, SSE_TYPE, sse
from shared.errors import JobError
from shared.protocol.answers import AnswerSpec
from shared.protocol.events import Admitted
from shared.protocol.results import Usage

PER_POSITION = 10_000
"""Distance between the numbers of two positions in the output.

No position has that many events, since a call is reported at the position of its last character.
"""
START_ID, END_ID = "start", "end"
_ID = re.compile(r"([0-9]{1,15})-([0-9a-f]{8})")


@dataclass(frozen=True, slots=True)
class TypedEvent:
    """One event, without its number."""

    name: str
    data: dict[str, Any]


class EventFormat(Protocol):
    """Interface of the classes that render one API's events."""

    is_numbered: bool
    """Whether the data of an event contains its number, as `sequence_number`."""

    def opening(self, num_prompt_tokens: int) -> list[TypedEvent]:
        """Return the events before the first output. `num_prompt_tokens` is 0 if unknown."""

    def block(self, event: BlockEvent) -> list[TypedEvent]:
        """Return the events that report a change of a block. An `Added` makes exactly one event."""

    def closing(self, reader: BlockReader, usage: Usage) -> list[TypedEvent]:
        """Return the events after the last output."""

    def failure(self, reader: BlockReader, error: JobError) -> TypedEvent:
        """Return the last event of the stream of a failed job."""

    def interruption(self, error: JobError) -> TypedEvent:
        """Return the last event of a stream that the client can continue later."""


@dataclass(frozen=True, slots=True)
class After:
    """Position after an event. By default, the position before the first event."""

    number: int = -1
    checksum: int | None = None
    """Checksum of the output before the position; None if it isn't known."""
    is_end: bool = False
    """Whether the stream has no events after the position."""

    @property
    def num_chars(self) -> int:
        """Number of characters of output before the position; one higher after the output's end."""
        return max(0, self.number) // PER_POSITION

    @property
    def id(self) -> str:
        """Id of the event before the position."""
        return START_ID if self.number < 0 else f"{self.number}-{self.checksum or 0:08x}"


BEGINNING = After()


class TypedStream:
    """Renders the events of one stream, from its start or after one of its events."""

    media_type = SSE_TYPE
    idle = None

    def __init__(self, spec: AnswerSpec, events: EventFormat, after: After = BEGINNING) -> None:
        self._spec = spec
        self._events = events
        self._after = after
        self._reader = BlockReader(spec)
        self._checksum = _Checksum()
        self._num_prompt_tokens = 0
        self._next = 0
        """Number of the next event at the current position."""
        self._last = after
        self._held: tuple[After, Added] | None = None
        """New text that isn't rendered yet, because more may follow, and the position after it."""

    def chunks(self, updates: Sequence[Update]) -> bytes:
        """Return the events for `updates`. In the first call, the opening events come first.

        Raises:
            Misplaced: the output doesn't have the text that precedes the stream's position.
        """
        if self._after.is_end:
            return b""
        for update in updates:
            if isinstance(update, Admitted):
                self._num_prompt_tokens = update.prompt_tokens
        events = [*self._opening()]
        for given in deltas_of(updates):
            whole, self._reader.stop = without_stop(self._spec, given)
            for delta in self._divided(whole):
                events += self._output(delta)
                self._check(delta)
        return b"".join((*events, *self._flushed()))

    def closing(self, usage: Usage) -> bytes:
        """Return the end of a successful stream.

        Raises:
            Misplaced: the output doesn't have the text that precedes the stream's position.
        """
        if self._after.is_end:
            return b""
        if self._reader.num_chars < self._after.num_chars:
            raise Misplaced
        self._next = max(self._next, self._reader.num_chars * PER_POSITION)
        return b"".join(self._all_of(self._events.closing(self._reader, usage)))

    def failure(self, error: JobError) -> bytes:
        """Return the end of a stream that failed."""
        opening = b"".join(self._opening())
        if self._after.is_end or self._next == self._after.number:
            return b""
        number = max(self._next, self._last.number + 1)
        return opening + self._sse(self._events.failure(self._reader, error), number, END_ID)

    def interruption(self, error: JobError) -> bytes:
        """Return the last event of a stream that the client can continue elsewhere."""
        last = self._sse(self._events.interruption(error), max(self._last.number, 0), self._last.id)
        return RETRY + last

    def _opening(self) -> Iterator[bytes]:
        if self._next == 0:
            yield from self._all_of(self._events.opening(self._num_prompt_tokens))

    def _divided(self, delta: Delta) -> list[Delta]:
        """Divide a delta at the position after which the stream continues."""
        at = self._after.num_chars - self._reader.num_chars
        if not 0 < at < len(delta.text):
            return [delta]
        first = Delta(delta.choice, delta.text[:at], None, delta.logprobs)
        return [first, Delta(delta.choice, delta.text[at:], delta.finish)]

    def _output(self, delta: Delta) -> Iterator[bytes]:
        start = self._reader.num_chars
        for position, event in self._reader.feed(delta):
            self._checksum.add(delta.text, start, position)
            self._next = max(self._next, position * PER_POSITION)
            if isinstance(event, Added):
                self._hold(event)
            else:
                yield from self._flushed()
                yield from self._all_of(self._events.block(event))
        self._checksum.add(delta.text, start, self._reader.num_chars)

    def _check(self, delta: Delta) -> None:
        """Compare the output before the stream's position with the output that the client has.

        Raises:
            Misplaced: they differ, or the output ends before the position.
        """
        missing = self._after.num_chars - self._reader.num_chars
        if delta.finish and missing > 0:
            raise Misplaced
        if missing == 0 and self._after.checksum not in (None, self._checksum.value):
            raise Misplaced

    def _hold(self, event: Added) -> None:
        at = self._advance()
        if at.number <= self._after.number:
            return
        if self._held:
            before = self._held[1]
            event = Added(event.block, before.text + event.text, before.logprobs + event.logprobs)
        self._held = at, event

    def _flushed(self) -> Iterator[bytes]:
        if self._held:
            (at, added), self._held = self._held, None
            (event,) = self._events.block(added)
            yield self._sent(event, at)

    def _all_of(self, events: Sequence[TypedEvent]) -> Iterator[bytes]:
        for event in events:
            at = self._advance()
            if at.number > self._after.number:
                yield self._sent(event, at)

    def _advance(self) -> After:
        """Return the position after the next event."""
        self._next += 1
        return After(self._next - 1, self._checksum.value)

    def _sent(self, event: TypedEvent, at: After) -> bytes:
        self._last = at
        return self._sse(event, at.number, at.id)

    def _sse(self, event: TypedEvent, number: int, event_id: str) -> bytes:
        data = {"type": event.name, **event.data}
        if self._events.is_numbered:
            data["sequence_number"] = number
        return sse(data, event_id=event_id, name=event.name)


class _Checksum:
    """Checksum of the output up to a position. The position can only increase."""

    def __init__(self) -> None:
        self.value = zlib.crc32(b"")
        self._position = 0

    def add(self, text: str, start: int, position: int) -> None:
        """Advance to `position`. `text` is the output from position `start` on."""
        added = text[self._position - start : position - start]
        self.value = zlib.crc32(added.encode(), self.value)
        self._position = max(self._position, min(position, start + len(text)))


def parse_after(text: str, *, param: str) -> After:
    """Return the position after the event with the id `text`. An empty text is the start.

    Raises:
        JobFailed: no typed event has this id. The error names `param`.
    """
    if text in ("", START_ID):
        return BEGINNING
    if text == END_ID:
        return After(is_end=True)
    found = _ID.fullmatch(text)
    if not found:
        raise unknown_event_id(text, param)
    return After(int(found[1]), int(found[2], 16))
