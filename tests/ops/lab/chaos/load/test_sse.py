"""Server-sent events are read as the standard says."""

import httpx

from ops.lab.chaos.load.sse import Event, read_events


async def events(text: str) -> list[Event]:
    return [event async for event in read_events(httpx.Response(200, text=text))]


async def test_ids_and_data_are_read_and_comments_ignored() -> None:
    text = ": keep-alive\nid: 7\ndata: a\ndata: b\n\ndata: [DONE]\n\n"
    assert await events(text) == [Event("7", "a\nb"), Event(None, "[DONE]")]


async def test_an_event_that_is_cut_off_is_dropped() -> None:
    assert await events("id: 1\ndata: a\n\nid: 2\ndata: b\n") == [Event("1", "a")]
