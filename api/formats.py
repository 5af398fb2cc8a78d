"""Chooses the format of an answer: of its complete body, and of its stream. Pure."""

from collections.abc import Callable, Sequence
from typing import Any

from api.follow.transcript import ChoiceTranscript
from api.generate.body import generated_body
from api.generate.events import GenerateStream
from api.messages.body import message_body
from api.messages.events import MessageEvents
from api.ollama.body import finished_answer
from api.ollama.stream import JsonLines
from api.render.blocks import read_blocks
from api.render.durations import Durations
from api.render.event_ids import START, Position, parse_event_id
from api.render.openai_chunks import complete_body
from api.render.stream_writer import StreamWriter
from api.render.typed_stream import After, TypedStream, parse_after
from api.responses.body import finished_body
from api.responses.events import ResponseEvents
from shared.errors import ErrorCode, JobError, invalid_param
from shared.protocol.answers import AnswerSpec
from shared.protocol.jobs import View
from shared.protocol.results import Usage

AnyPosition = Position | After
Stream = StreamWriter | TypedStream | JsonLines | GenerateStream
"""Renders the events of one stream.

`media_type` is the media type of the stream. `idle` are the bytes to send while the stream has no
new output; None if comments are sent instead.
"""


def stream_of(
    spec: AnswerSpec,
    after: AnyPosition | None = None,
    durations: Callable[[], Durations | None] = lambda: None,
) -> Stream:
    """Return a writer of the answer's stream. The stream starts at the beginning or after `after`.

    `durations` returns the times that the answer has taken, if they were measured.
    """
    if spec.view is View.OLLAMA:
        return JsonLines(spec, durations)
    if spec.view is View.OPENAI:
        assert not isinstance(after, After)
        return StreamWriter(spec, after or START)
    if spec.view is View.GENERATE:
        return GenerateStream(spec)
    events = ResponseEvents(spec) if spec.view is View.RESPONSES else MessageEvents(spec)
    return TypedStream(spec, events, after if isinstance(after, After) else After())


def position_after(event_id: str, spec: AnswerSpec, *, param: str) -> AnyPosition:
    """Return the position after the event with the id `event_id` in the stream of an answer.

    Raises:
        JobFailed: the answer's stream can't have an event with this id. The error names `param`.
    """
    if spec.view is View.OLLAMA and event_id:
        raise invalid_param(param, "isn't available: streams in Ollama's format have no event ids")
    if spec.view is View.OPENAI:
        return parse_event_id(event_id, spec, param=param)
    return parse_after(event_id, param=param)


def shows_partial(spec: AnswerSpec, error: JobError) -> bool:
    """Return whether the client of a job that failed with `error` still gets the partial answer."""
    return spec.view is View.GENERATE and error.code is ErrorCode.CANCELLED


def partial_body(
    spec: AnswerSpec, choices: Sequence[ChoiceTranscript], error: JobError
) -> dict[str, Any] | list[Any]:
    """Return the body of a partial answer, for which `shows_partial` is true."""
    return generated_body(spec, choices, None, aborted=error)


def whole_body(
    spec: AnswerSpec,
    choices: Sequence[ChoiceTranscript],
    usage: Usage,
    durations: Durations | None = None,
) -> dict[str, Any] | list[Any]:
    """Return the complete body of an answer. Only /generate has bodies that are lists.

    `durations` are the times that the answer took; None if they are unknown.
    """
    if spec.view is View.OLLAMA:
        return finished_answer(spec, choices, usage, durations)
    if spec.view is View.OPENAI:
        return complete_body(spec, choices, usage)
    if spec.view is View.GENERATE:
        return generated_body(spec, choices, usage)
    (choice,) = choices
    reader = read_blocks(spec, choice)
    render = finished_body if spec.view is View.RESPONSES else message_body
    return render(spec, reader, usage)
