"""Separates a model's reasoning from its answer while the text is generated. Pure.

Only text that starts with the opening marker has reasoning. A worker writes this marker before the
answer if the prompt already ends with it. The markers, and whitespace around them, are removed.
"""

from collections import defaultdict
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

from api.follow.transcript import Delta
from shared.reasoning_form import ReasoningForm


@dataclass(frozen=True, slots=True)
class Split:
    """New text, split into its parts."""

    reasoning: str = ""
    content: str = ""


class _Part(Enum):
    START = auto()
    """No text yet, or the start of an opening marker."""
    OPENED = auto()
    """After an opening marker and any whitespace. Some models repeat the marker."""
    REASONING = auto()
    """Inside the reasoning."""
    CLOSED = auto()
    """After the closing marker and any whitespace."""
    CONTENT = auto()
    """In the answer."""


class ReasoningParser:
    """Splits the output of one choice.

    The state depends on the text so far, but not on how it was divided into pieces.
    """

    def __init__(self, form: ReasoningForm) -> None:
        self.has_reasoning = False
        """Whether the text started with the opening marker."""
        self._form = form
        self._part = _Part.START
        self._held = ""

    def feed(self, text: str) -> Split:
        """Process more text, and return the parts that are certain.

        Characters that may belong to a marker, and whitespace that may precede one, are held back.
        """
        self._held += text
        if self._part in (_Part.START, _Part.OPENED):
            self._open()
        reasoning = self._reasoning() if self._part is _Part.REASONING else ""
        content = self._content() if self._part in (_Part.CLOSED, _Part.CONTENT) else ""
        return Split(reasoning, content)

    def close(self) -> Split:
        """End the text, and return the characters that are still held back."""
        held, self._held = self._held, ""
        if self._part in (_Part.OPENED, _Part.REASONING):
            return Split(reasoning=held)
        return Split(content=held)

    def _open(self) -> None:
        """Remove complete opening markers from the start of the held text."""
        while (rest := self._held.lstrip()).startswith(self._form.opening):
            self._part, self.has_reasoning = _Part.OPENED, True
            self._held = rest.removeprefix(self._form.opening)
        if self._form.opening.startswith(rest):
            return  # more of a marker may follow
        if self._part is _Part.START:
            self._part = _Part.CONTENT
        else:
            self._part, self._held = _Part.REASONING, rest

    def _reasoning(self) -> str:
        """Take the reasoning from the held text, and the closing marker after it."""
        before, marker, after = self._held.partition(self._form.closing)
        if marker:
            self._part, self._held = _Part.CLOSED, after
            return before.rstrip()
        certain = _without_start_of(self._form.closing, before).rstrip()
        self._held = before[len(certain) :]
        return certain

    def _content(self) -> str:
        if self._part is _Part.CLOSED:
            self._held = self._held.lstrip()
            if self._held:
                self._part = _Part.CONTENT
        content, self._held = self._held, ""
        return content


def _without_start_of(marker: str, text: str) -> str:
    """Return `text` without an incomplete `marker` at its end."""
    for length in range(min(len(marker) - 1, len(text)), 0, -1):
        if text.endswith(marker[:length]):
            return text[:-length]
    return text


class ReasoningAnswers:
    """Splits the choices of one job into reasoning and the rest of their text."""

    def __init__(self, form: ReasoningForm, *, is_hidden: bool) -> None:
        """Create a splitter of answers in `form`. If `is_hidden`, the reasoning is left out."""
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
        """Return `delta` without its reasoning, and the fields that report the reasoning.

        The fields are those of `delta` objects in OpenAI's format. Each item of the
        list is sent in its own chunk.
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
