"""Counts the tokens of an answer's reasoning."""

from enum import Enum, auto

from shared.reasoning_form import ReasoningForm


class _Part(Enum):
    START = auto()
    """The answer is still empty, or is the start of an opening marker."""
    REASONING = auto()
    AFTER = auto()


class ReasoningCounter:
    """Counts the tokens between the markers of one answer's reasoning.

    Only an answer that starts with the opening marker has reasoning. Without a closing marker, the
    reasoning is the rest of the answer.
    """

    def __init__(self, form: ReasoningForm | None) -> None:
        """Create a counter. If `form` is None, answers have no reasoning."""
        self.num_tokens = 0
        """Number of reasoning tokens so far."""
        self._form = form
        self._part = _Part.START if form else _Part.AFTER
        self._text = ""
        """End of the answer's text so far, which may contain the start of a marker."""

    def add(self, text: str) -> None:
        """Count a token that adds `text` to the answer, if the token is part of the reasoning.

        `text` may be empty, because a stream holds back incomplete text.
        """
        if self._form is None or self._part is _Part.AFTER:
            return
        self._text += text
        if self._part is _Part.START:
            self._open(self._form)
        elif self._form.closing in self._text:
            self._part = _Part.AFTER
        else:
            self.num_tokens += 1
            self._text = self._text[-len(self._form.closing) :]

    def _open(self, form: ReasoningForm) -> None:
        """Check whether the text starts with the opening marker, and count the text after it.

        Wait for more text if the marker may still be incomplete.
        """
        start = self._text.lstrip()
        if form.opening.startswith(start) and start != form.opening:
            return
        self._part = _Part.REASONING if start.startswith(form.opening) else _Part.AFTER
        rest = start.removeprefix(form.opening)
        if self._part is _Part.REASONING and rest:
            self._text = ""
            self.add(rest)
