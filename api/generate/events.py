"""Renders an answer to /generate as a stream of server-sent events. Pure.

Each event has the whole answer so far, as in SGLang. The events have no ids, because the next event
after a reconnection repeats what the client has.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from api.follow.transcript import ChoiceTranscript
from api.follow.updates import Update, deltas_of
from api.generate.answer_form import form_of
from api.generate.body import answer_body
from api.http.errors import job_error_body
from api.render.sse import SSE_TYPE
from shared.errors import ErrorCode, JobError
from shared.protocol.answers import AnswerSpec
from shared.protocol.results import Usage

DONE = b"data: [DONE]\n\n"
STEPS = 64
"""Between two events, an answer grows by at least the number of tokens already sent / `STEPS`.

Each event repeats the whole answer. If each token of a long answer had an event, the total size of
the events would be quadratic in the answer's length.
"""


class GenerateStream:
    """Renders the events of one stream."""

    media_type = SSE_TYPE
    idle = None

    def __init__(self, spec: AnswerSpec) -> None:
        self._spec = spec
        self._form = form_of(spec.request)
        self._choices = [ChoiceTranscript() for _ in range(spec.num_choices)]
        self._num_sent = [0] * spec.num_choices
        """For each choice, the number of tokens in the choice's latest event."""
        self._open = set(range(spec.num_choices))
        """Indexes of the choices whose final event hasn't been sent."""

    def chunks(self, updates: Sequence[Update]) -> bytes:
        """Return the events for `updates`."""
        deltas = deltas_of(updates)
        for delta in deltas:
            choice = self._choices[delta.choice]
            choice.ids += delta.ids
            choice.prompt_ids = choice.prompt_ids or delta.prompt_ids
            choice.append(delta)
        changed = {delta.choice for delta in deltas}
        return self._events(index for index in sorted(changed) if self._is_due(index))

    def closing(self, usage: Usage) -> bytes:
        """Return the end of a successful stream: the final events that haven't been sent yet."""
        return self._events(sorted(self._open), usage=usage) + DONE

    def failure(self, error: JobError) -> bytes:
        """Return the end of a stream that failed.

        If the job was cancelled, the stream ends with the partial answers and the reason `abort`.
        """
        if error.code is ErrorCode.CANCELLED:
            return self._events(sorted(self._open), aborted=error) + DONE
        return _event(job_error_body(error)) + DONE

    def interruption(self, error: JobError) -> bytes:
        """Return the last event of a stream whose server stops."""
        return _event(job_error_body(error))

    def _is_due(self, index: int) -> bool:
        choice, num_sent = self._choices[index], self._num_sent[index]
        if choice.finish is not None:
            return self._form.is_list  # the end of a single answer has the token counts of the job
        num_new = len(choice.ids) - num_sent
        return num_new >= max(self._form.interval, num_sent // STEPS)

    def _events(self, indexes: Iterable[int], **state: Any) -> bytes:
        return b"".join(self._answer(index, **state) for index in indexes)

    def _answer(self, index: int, **state: Any) -> bytes:
        choice = self._choices[index]
        self._num_sent[index] = len(choice.ids)
        if choice.finish is not None:
            self._open.discard(index)
        body = answer_body(self._spec, self._form, choice, index, **state)
        return _event(body | ({"index": index} if self._form.is_list else {}))


def _event(body: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(body)
