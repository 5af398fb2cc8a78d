"""Renders the reasoning in answers in the format of vLLM. Pure."""

from collections import defaultdict
from dataclasses import replace
from typing import Any

from api.follow.transcript import Delta
from api.render.reasoning import ReasoningParser, Split
from shared.reasoning_form import ReasoningForm


class ReasoningAnswers:
    """Splits the choices of one job into reasoning and the rest of their text."""

    def __init__(self, form: ReasoningForm, *, is_hidden: bool) -> None:
        """Render answers of a form. If `is_hidden`, leave the reasoning out."""
        self._is_hidden = is_hidden
        self._parsers: defaultdict[int, ReasoningParser] = defaultdict(
            lambda: ReasoningParser(form)
        )

    def message(self, choice: int, text: str) -> tuple[str, dict[str, Any]]:
        """Return the text after the reasoning, and the message fields that hold the reasoning."""
        parser = self._parsers[choice]
        split = _joined(parser.feed(text), parser.close())
        return split.content, {} if self._is_hidden else _fields(split.reasoning or None)

    def deltas(self, delta: Delta) -> tuple[Delta, list[dict[str, Any]]]:
        """Return `delta` without its reasoning, and the `delta` fields that report the reasoning.

        Each item of the list is sent in its own chunk.
        """
        parser = self._parsers[delta.choice]
        split = parser.feed(delta.text)
        if delta.finish:
            split = _joined(split, parser.close())
        added = [_fields(split.reasoning)] if split.reasoning and not self._is_hidden else []
        return replace(delta, text=split.content), added

    def has_reasoning(self, choice: int) -> bool:
        """Return whether the text of the choice started with reasoning."""
        return self._parsers[choice].has_reasoning


def _joined(first: Split, second: Split) -> Split:
    return Split(first.reasoning + second.reasoning, first.content + second.content)


def _fields(reasoning: str | None) -> dict[str, Any]:
    # Earlier releases of vLLM and other servers call it reasoning_content, newer ones reasoning.
    return {"reasoning_content": reasoning, "reasoning": reasoning}
