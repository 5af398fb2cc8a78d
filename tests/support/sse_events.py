"""Server-sent events of a response, and the answer that they contain."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import orjson


@dataclass(frozen=True)
class SseEvent:
    """Fields of one event."""

    data: str
    id: str | None = None
    retry: str | None = None
    event: str | None = None

    @property
    def json(self) -> Any:
        return orjson.loads(self.data)


def sse_events(text: str) -> list[SseEvent]:
    """Return the events of a stream. Comments are left out."""
    return [event for block in text.split("\n\n") if (event := _event(block.split("\n")))]


def sse_bytes(*chunks: Any) -> bytes:
    return b"".join(b"data: %s\n\n" % orjson.dumps(chunk) for chunk in chunks)


def _event(lines: Sequence[str]) -> SseEvent | None:
    parts = [line.partition(": ") for line in lines]
    fields = {name: value for name, _, value in parts if name}
    return SseEvent(**fields) if fields else None


class EventReader:
    """Reads the events of a response one after another."""

    def __init__(self, response: httpx.Response) -> None:
        self.events: list[SseEvent] = []
        """Events that were read."""
        self._lines = response.aiter_lines()

    async def next(self) -> SseEvent | None:
        """Return the next event, or None at the end of the response."""
        lines: list[str] = []
        async for line in self._lines:
            lines += [line] if line else []
            if not line and (event := _event(lines)):
                self.events.append(event)
                return event
            lines = lines if line else []
        return None

    async def until(self, text: str) -> SseEvent:
        """Read up to an event whose data contains `text`, and return the event."""
        while event := await self.next():
            if text in event.data:
                return event
        raise AssertionError(f"the stream ended without {text!r}")

    async def rest(self) -> list[SseEvent]:
        """Return all events that weren't read."""
        start = len(self.events)
        while await self.next():
            pass
        return self.events[start:]


def answer_in(events: Sequence[SseEvent]) -> dict[Any, Any]:
    """Return what a whole stream says of each choice, and its usage."""
    found: dict[Any, Any] = {}

    def add(value: Any, *key: Any) -> None:
        if value:
            found[key] = found[key] + value if key in found else value

    *chunks, done = events
    assert done.data == "[DONE]"
    for event in chunks:
        usage, prompt_ids = event.json.get("usage"), event.json.get("prompt_token_ids")
        add([usage] if usage and not event.json["choices"] else None, "usage")
        add(prompt_ids, "prompt_token_ids")
        for choice in event.json["choices"]:
            index, delta = choice["index"], choice.get("delta", {})
            add(choice.get("text", "") + (delta.get("content") or ""), index, "text")
            add(delta.get("reasoning_content"), index, "reasoning")
            add(delta.get("role"), index, "role")
            add(choice["finish_reason"], index, "finish")
            add(choice.get("token_ids"), index, "token_ids")
            add(choice.get("prompt_token_ids"), index, "prompt_token_ids")
            if usage:  # the counts so far
                found[index, "usage"] = usage
            for call in delta.get("tool_calls", []):
                add(call.get("id"), index, call["index"], "id")
                add(call["function"].get("name"), index, call["index"], "name")
                add(call["function"]["arguments"], index, call["index"], "arguments")
            for name, values in (choice["logprobs"] or {}).items():
                add(values, index, name)
    return found
