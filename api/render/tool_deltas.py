"""Renders answers with tool calls in OpenAI's format. Pure."""

from collections import defaultdict
from typing import Any

from api.follow.transcript import Delta
from api.render.tool_parser import (
    CallArguments,
    CallStart,
    Piece,
    Text,
    ToolCallParser,
    call_digest,
)
from shared.protocol.ids import JobId
from shared.protocol.results import FinishReason
from shared.protocol.tools import ToolForm, ToolUse

TOOL_CALLS = "tool_calls"
"""OpenAI's finish reason for an answer that calls tools."""


class ToolAnswers:
    """Splits the choices of one job into content and tool calls."""

    def __init__(
        self, job_id: JobId, use: ToolUse, *, stream: bool, is_constrained: bool = False
    ) -> None:
        self._job_id = job_id
        self._form = use.form
        self._parsers: defaultdict[int, ToolCallParser] = defaultdict(
            lambda: ToolCallParser(use, emits_early=stream, is_constrained=is_constrained)
        )

    def message(self, choice: int, text: str, finish: FinishReason | None) -> dict[str, Any]:
        """Return the fields `content` and `tool_calls` for an answer `text` that `finish` ended."""
        parser = self._parsers[choice]
        content, calls = "", list[dict[str, Any]]()
        for piece in parser.feed(text) + _last(parser, finish):
            match piece:
                case Text():
                    content += piece.text
                case CallStart():
                    calls.append(self._start(choice, piece))
                case CallArguments():
                    calls[piece.index]["function"]["arguments"] += piece.text
        return {"content": None if calls and not content else content, "tool_calls": calls or None}

    def deltas(self, delta: Delta) -> list[dict[str, Any]]:
        """Return the `delta` fields that report new output. Each item is sent in its own chunk."""
        parser = self._parsers[delta.choice]
        pieces = parser.feed(delta.text) + (_last(parser, delta.finish) if delta.finish else [])
        return [self._delta(delta.choice, piece) for piece in pieces]

    def finish_reason(self, choice: int, finish: FinishReason | None) -> str | None:
        """Return OpenAI's finish reason.

        Callers must first pass the complete text of the choice to `message` or `deltas`.
        """
        has_called = self._parsers[choice].num_calls > 0
        return TOOL_CALLS if has_called and finish is FinishReason.STOP else finish

    def _delta(self, choice: int, piece: Piece) -> dict[str, Any]:
        match piece:
            case Text():
                return {"content": piece.text}
            case CallStart():
                return {"tool_calls": [{"index": piece.index, **self._start(choice, piece)}]}
            case CallArguments():
                function = {"arguments": piece.text}
                return {"tool_calls": [{"index": piece.index, "function": function}]}

    def _start(self, choice: int, call: CallStart) -> dict[str, Any]:
        digest = call_digest(self._job_id, choice, call.index)
        # Mistral's templates accept only ids of 9 letters and digits when clients send calls back.
        is_short = self._form in (ToolForm.MISTRAL, ToolForm.MISTRAL_ARGS)
        call_id = digest[:9] if is_short else f"call_{digest}"
        function = {"name": call.name, "arguments": ""}
        return {"id": call_id, "type": "function", "function": function}


def _last(parser: ToolCallParser, finish: FinishReason | None) -> list[Piece]:
    return parser.close(is_cut=finish is FinishReason.LENGTH)
