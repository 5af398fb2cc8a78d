"""Renders a job's output as a stream of JSON objects, one on each line, as Ollama does. Pure."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson

from api.follow.updates import Update, deltas_of
from api.http.errors import ollama_error_body
from api.ollama.body import Part, answer_part, end_fields, tool_call
from api.render.blocks import Added, BlockEvent, BlockKind, BlockReader, Closed
from api.render.durations import Durations
from api.render.sse import JSON_LINES_TYPE
from shared.errors import JobError
from shared.protocol.answers import AnswerSpec
from shared.protocol.results import Usage


class JsonLines:
    """Renders the lines of one stream, from its start.

    The lines have no ids, so an interrupted stream can't continue.
    """

    media_type = JSON_LINES_TYPE
    idle = b" "
    """Whitespace that keeps the stream alive until the next object. A blank line would make
    Ollama's clients fail, and Open WebUI would take an object without text for the end of the
    answer."""

    def __init__(self, spec: AnswerSpec, durations: Callable[[], Durations | None]) -> None:
        """Create a writer. `durations` returns the times that the answer has taken, or None."""
        self._spec = spec
        self._durations = durations
        self._reader = BlockReader(spec)
        self._num_calls = 0

    def chunks(self, updates: Sequence[Update]) -> bytes:
        """Return the lines for `updates`: one line for each part of a block of the output."""
        events = (event for delta in deltas_of(updates) for _, event in self._reader.feed(delta))
        parts = self._parts(events)
        return b"".join(json_line(answer_part(self._spec, part)) for part in parts)

    def closing(self, usage: Usage) -> bytes:
        """Return the last line, with the token counts and the durations."""
        end = end_fields(self._reader.finish, usage, self._durations())
        return json_line(answer_part(self._spec, Part()) | end)

    def failure(self, error: JobError) -> bytes:
        """Return the last line of a stream that failed."""
        return json_line(ollama_error_body(error))

    def interruption(self, error: JobError) -> bytes:
        """Return the last line of a stream that ends because this process stops."""
        return self.failure(error)

    def _parts(self, events: Iterator[BlockEvent]) -> Iterator[Part]:
        """Join the adjacent events of one block into a part. Empty parts are left out."""
        part = Part()
        for event in events:
            match event:
                case Added() if event.block.kind is BlockKind.TEXT:
                    part.texts.append(event.text)
                    part.logprobs += event.logprobs
                case Added() if event.block.kind is BlockKind.REASONING:
                    part.thoughts.append(event.text)
                case Closed():
                    if event.block.kind is BlockKind.CALL:
                        part.calls.append(tool_call(event.block, self._num_calls))
                        self._num_calls += 1
                    if not part.is_empty:
                        yield part
                    part = Part()
        if not part.is_empty:
            yield part


def json_line(body: dict[str, Any]) -> bytes:
    """Return an object as a line of a stream."""
    return orjson.dumps(body) + b"\n"
