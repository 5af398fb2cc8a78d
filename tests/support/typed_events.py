"""Typed events of a stream of /v1/responses or /v1/messages."""

from collections.abc import Sequence
from typing import Any

from sse_events import SseEvent

Folded = list[tuple[str, Any, Any, Any]]


def folded(events: Sequence[SseEvent]) -> Folded:
    """Return the events without their numbers. New texts that follow each other are joined.

    Each item has the type of an event, its other fields, its text and its log-probabilities.
    """
    found: Folded = []
    for event in events:
        data = event.json
        kind = data.pop("type")
        assert event.event == kind
        data.pop("sequence_number", None)
        text = data.pop("delta", None) if "delta" in kind else None
        logprobs = data.pop("logprobs", None) if text is not None else None
        follows = found and found[-1][:2] == (kind, data)
        if text is not None and follows and _kind(text) == _kind(found[-1][2]):
            *_, before, logprobs_before = found.pop()
            text = _joined(before, text)
            logprobs = [*(logprobs_before or ()), *(logprobs or ())]
        found.append((kind, data, text, logprobs or None))
    return found


def _joined(before: Any, after: Any) -> Any:
    if isinstance(before, str):
        return before + after
    return {k: v if k == "type" else v + after[k] for k, v in before.items()}


def _kind(text: Any) -> Any:
    """Return the type of a delta of /v1/messages; None for a text."""
    return text["type"] if isinstance(text, dict) else None
