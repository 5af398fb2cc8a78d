"""Chooses the format of an answer: of its complete body, and of its stream. Pure."""

from collections.abc import Sequence
from typing import Any

from api.follow.transcript import ChoiceTranscript
from api.messages.body import message_body
from api.messages.events import MessageEvents
from api.render.blocks import read_blocks
from api.render.event_ids import START, Position, parse_event_id
from api.render.openai_chunks import complete_body
from api.render.stream_writer import StreamWriter
from api.render.typed_stream import After, TypedStream, parse_after
from api.responses.body import finished_body
from api.responses.events import ResponseEvents
from shared.protocol.answers import AnswerSpec
from shared.protocol.jobs import View
from shared.protocol.results import Usage

AnyPosition = Position | After
Stream = StreamWriter | TypedStream
"""Renders the events of one stream."""


def stream_of(spec: AnswerSpec, after: AnyPosition | None = None) -> Stream:
    """Return a writer of the answer's stream. It starts at the beginning or after `after`."""
    if spec.view is View.OPENAI:
        assert not isinstance(after, After)
        return StreamWriter(spec, after or START)
    events = ResponseEvents(spec) if spec.view is View.RESPONSES else MessageEvents(spec)
    return TypedStream(spec, events, after if isinstance(after, After) else After())


def position_after(event_id: str, spec: AnswerSpec, *, param: str) -> AnyPosition:
    """Return the position after the event with the id `event_id` in the stream of an answer.

    Raises:
        JobFailed: the answer's stream can't have an event with this id. The error names `param`.
    """
    if spec.view is View.OPENAI:
        return parse_event_id(event_id, spec, param=param)
    return parse_after(event_id, param=param)


def whole_body(
    spec: AnswerSpec, choices: Sequence[ChoiceTranscript], usage: Usage
) -> dict[str, Any]:
    """Return the complete body of an answer."""
    if spec.view is View.OPENAI:
        return complete_body(spec, choices, usage)
    (choice,) = choices
    reader = read_blocks(spec, choice)
    render = finished_body if spec.view is View.RESPONSES else message_body
    return render(spec, reader, usage)
