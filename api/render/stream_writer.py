"""Renders a job's output as a stream of server-sent events in OpenAI's format. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from api.follow.transcript import Delta
from api.follow.updates import Update, deltas_of
from api.http.errors import job_error_body
from api.render.catch_up import CatchUp, Misplaced, Replay
from api.render.event_ids import (
    END_ID,
    START,
    End,
    Middle,
    Opening,
    Position,
    SentOutput,
)
from api.render.openai_chunks import format_of, head, usage_body
from api.render.sse import RETRY, SSE_TYPE, sse
from api.render.token_fields import ChunkTokens, prompt_ids
from shared.errors import JobError
from shared.protocol.answers import AnswerSpec
from shared.protocol.results import Usage

DONE = b"data: [DONE]\n\n"


class StreamWriter:
    """Renders the events of one stream, from its start or after one of its events.

    A job can have several streams, for example after a reconnect. They may divide the output into
    different chunks, but the joined output is the same.
    """

    media_type = SSE_TYPE
    idle = None

    def __init__(self, spec: AnswerSpec, after: Position = START) -> None:
        """Create a writer of the events after the position `after`."""
        self._last_id = after.id
        self._format = format_of(spec, stream=True)
        self._num_choices = spec.num_choices
        self._num_opening = after.num_chunks if isinstance(after, Opening) else None
        self._catch_up = CatchUp(after) if isinstance(after, Middle) else None
        self._is_ended = isinstance(after, End)
        self._sent = SentOutput(spec)
        self._head = head(self._format, spec, self._format.chunk_object)
        self._include_usage = spec.include_usage
        self._tokens = ChunkTokens(spec) if spec.counts_tokens else None
        self._opens_with_ids = spec.returns_token_ids
        self._held: list[Update] = []
        if spec.include_usage:
            self._head["usage"] = None  # OpenAI's clients expect null in every chunk but the last

    def chunks(self, updates: Sequence[Update]) -> bytes:
        """Return the chunks for `updates`. In the first call, the opening chunks come first.

        Raises:
            Misplaced: the answer doesn't have the text that precedes the writer's position.
        """
        if self._is_ended:
            return b""
        if self._waits_for_ids:
            updates = self._held = [*self._held, *updates]
            ended = {delta.choice for delta in deltas_of(updates) if delta.finish}
            if not prompt_ids(updates) and len(ended) < self._num_choices:
                return b""
        events = self._opening(updates)
        for replay in self._replays(deltas_of(updates)):
            events += self._rendered(replay)
        return b"".join(events)

    def closing(self, usage: Usage) -> bytes:
        """Return the end of a successful stream, with the token counts if they were requested.

        Raises:
            Misplaced: the answer doesn't have the text that precedes the writer's position.
        """
        if self._catch_up:
            raise Misplaced
        if self._is_ended or not self._include_usage:
            return DONE
        return self._event(END_ID, {"choices": [], "usage": usage_body(usage)}) + DONE

    def failure(self, error: JobError) -> bytes:
        """Return the end of a stream that failed."""
        return DONE if self._is_ended else sse(job_error_body(error), event_id=END_ID) + DONE

    def interruption(self, error: JobError) -> bytes:
        """Return the last event of a stream that the client can continue elsewhere.

        The stream has no `[DONE]`. `error` is the reason.
        """
        return RETRY + sse(job_error_body(error), event_id=self._last_id)

    @property
    def _waits_for_ids(self) -> bool:
        """Whether the opening waits for the token ids of the prompt. vLLM's has them, too."""
        return self._opens_with_ids and self._num_opening is not None

    def _opening(self, updates: Sequence[Update]) -> list[bytes]:
        """Return the opening chunks that the client doesn't have."""
        if self._num_opening is None:
            return []
        first, self._num_opening, self._held = self._num_opening, None, []
        choices = self._format.opening(self._num_choices)
        chunks: list[dict[str, Any]] = [{"choices": [choice]} for choice in choices]
        if self._tokens:
            self._tokens.open(updates, chunks)
        return [
            self._event(Opening(count).id, chunk)
            for count, chunk in enumerate(chunks[first:], first + 1)
        ]

    def _replays(self, deltas: Sequence[Delta]) -> Iterable[Replay]:
        if self._catch_up is None:
            return map(Replay, deltas)
        replays = self._catch_up.add(deltas)
        if replays:
            self._catch_up = None
        return replays

    def _rendered(self, replay: Replay) -> Iterator[bytes]:
        """Add its delta to the sent output, and return the chunks that the client doesn't have."""
        choices = self._format.delta(replay.delta)
        ids = self._sent.add(replay.delta, len(choices))
        chunks: list[dict[str, Any]] = [{"choices": [choice]} for choice in choices]
        if self._tokens:
            self._tokens.add(replay.delta, chunks)
        first = len(ids) if replay.num_chunks is None else replay.num_chunks
        for event_id, chunk in zip(ids[first:], chunks[first:], strict=True):
            yield self._event(event_id, chunk)

    def _event(self, event_id: str, fields: dict[str, Any]) -> bytes:
        self._last_id = event_id
        return sse({**self._head, **fields}, event_id=event_id)
