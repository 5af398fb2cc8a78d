"""Server-sent events as bytes (WHATWG HTML, section 9.2).

Only events end with a blank line; comments don't. In the standard, a blank line after a comment has
no effect. However, once any event had an id, the decoders of openai-python yield an empty event for
such a line, and the client fails to parse the event's data.
"""

from typing import Any

import orjson

SSE_TYPE = "text/event-stream"
"""Media type of streams of events."""
JSON_LINES_TYPE = "application/x-ndjson"
"""Media type of streams of JSON objects, one on each line."""
RETRY = b"retry: 1000\n"
"""Field before an event. It asks clients to connect again one second after the stream ends."""


def sse(body: dict[str, Any], *, event_id: str, name: str | None = None) -> bytes:
    """Return `body` as one event."""
    head = f"event: {name}\n" if name else ""
    return b"%bid: %b\ndata: %b\n\n" % (head.encode(), event_id.encode(), orjson.dumps(body))


def sse_comment(text: str) -> bytes:
    """Return a comment of one line. Clients ignore comments."""
    return f": {text}\n".encode()
