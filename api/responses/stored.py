"""Responses that were stored as jobs: their objects and conversations. Pure."""

from typing import Any

from api.follow.transcript import ChoiceTranscript, Delta
from api.render.blocks import BlockReader, read_blocks
from api.responses.body import finished_body, output_items, response_body
from api.responses.items import Item, checked_items
from shared.protocol.answers import AnswerSpec
from shared.protocol.jobs import JobState, View
from shared.protocol.results import Result
from shared.store.views.job_view import JobView

_STATUSES = {
    JobState.QUEUED: "queued",
    JobState.RUNNING: "in_progress",
    JobState.CANCELLED: "cancelled",
}
"""Status of a response for the state of its job. Jobs in other states, except DONE, have failed."""


def is_stored(view: JobView) -> bool:
    """Return whether a job is a response that can be retrieved."""
    return view.spec.view is View.RESPONSES and stored_input(view.spec) is not None


def stored_input(spec: AnswerSpec) -> list[Item] | None:
    """Return the input items of a response, or None if it isn't stored."""
    return (spec.request or {}).get("input")


def retrieved_body(view: JobView, result: Result | None) -> dict[str, Any]:
    """Return the response object of a job in its present state."""
    if result is None or result.state is not JobState.DONE:
        status = _STATUSES.get(view.state, "failed")
        error = view.error if status == "failed" else None
        return response_body(view.spec, status=status, error=error)
    reader = _reader(view.spec, result)
    assert result.usage is not None
    return finished_body(view.spec, reader, result.usage)


def conversation(spec: AnswerSpec, result: Result) -> list[Item]:
    """Return the input and the output of a stored response that is done, as checked items."""
    output = output_items(spec, _reader(spec, result).blocks)
    return [*(stored_input(spec) or ()), *checked_items(output)]


def _reader(spec: AnswerSpec, result: Result) -> BlockReader:
    (choice,) = map(ChoiceTranscript.of, result.choices)
    return read_blocks(spec, Delta(0, choice.text, choice.finish, tuple(choice.logprobs)))
