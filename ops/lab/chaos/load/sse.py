"""Reads server-sent events (WHATWG HTML, section 9.2)."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx

from ops.server_client import sse_lines


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream."""

    id: str | None
    """Id of the event; None if the event has none."""
    data: str


async def read_events(response: httpx.Response) -> AsyncIterator[Event]:
    """Yield the events of a response. An event that is cut off isn't yielded."""
    event_id, data = None, []
    async for line in sse_lines(response):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            event_id = value
        elif name == "data":
            data.append(value)
        elif not line and data:
            yield Event(event_id, "\n".join(data))
            event_id, data = None, []
