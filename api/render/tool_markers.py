"""Where in a model's text calls of tools may begin, by the form that it writes them in. Pure."""

import re
from dataclasses import dataclass
from typing import Protocol

from shared.protocol.tools import HERMES_CLOSE, HERMES_OPEN, LLAMA3_SEPARATOR, ToolForm, ToolUse

_HERMES_CALL = re.compile(re.escape(HERMES_OPEN) + r"\s*\{")
_LLAMA3_FIRST = re.compile(r"\s*\{")
_LLAMA3_NEXT = re.compile(rf"\s*{LLAMA3_SEPARATOR}\s*\{{")


@dataclass(frozen=True, slots=True)
class Sought:
    """What came of looking for the next call."""

    text: str
    """Stands in front of it for sure."""
    held: str
    """What follows: the marks and the call, or what may turn out to be marks."""
    object_at: int | None
    """Where in `held` the call's object begins; None: there is no call yet."""


class Marks(Protocol):
    """Finds the calls of one text in their order."""

    def seek(self, text: str) -> Sought:
        """Look for the next call in `text`, which begins with what was held last."""

    def call_ended(self) -> None:
        """The object of the call that was found last is over."""

    def call_failed(self) -> None:
        """It was no call."""


def marks_of(use: ToolUse) -> Marks:
    """What finds calls of the form."""
    if use.form is ToolForm.HERMES:
        return _Tags(is_parallel=use.is_parallel)
    return _Objects(is_parallel=use.is_parallel)


class _Tags:
    """Hermes: each call stands between tags, anywhere in the text."""

    def __init__(self, *, is_parallel: bool) -> None:
        self._is_parallel = is_parallel
        self._may_call = True
        self._expects_close = False

    def seek(self, text: str) -> Sought:
        if self._expects_close:
            rest = text.lstrip()
            if HERMES_CLOSE.startswith(rest) and rest != HERMES_CLOSE:
                return Sought("", text, None)
            self._expects_close = False
            text = rest.removeprefix(HERMES_CLOSE) if rest.startswith(HERMES_CLOSE) else text
        if not self._may_call:
            return Sought(text, "", None)
        found = _HERMES_CALL.search(text)
        before = text[: found.start()].rstrip() if found else _before_tag(text)
        held = text[len(before) :]
        return Sought(before, held, found.end() - 1 - len(before) if found else None)

    def call_ended(self) -> None:
        self._expects_close = True
        self._may_call = self._is_parallel

    def call_failed(self) -> None:
        pass  # another one may follow


class _Objects:
    """Llama 3: the text is one call or several, or it is none."""

    def __init__(self, *, is_parallel: bool) -> None:
        self._is_parallel = is_parallel
        self._may_call = True
        self._start, self._separator = _LLAMA3_FIRST, ""

    def seek(self, text: str) -> Sought:
        if self._may_call:
            if found := self._start.match(text):
                return Sought("", text, found.end() - 1)
            if text.strip() in ("", self._separator):
                return Sought("", text, None)
        self._may_call = False
        return Sought(text, "", None)

    def call_ended(self) -> None:
        self._start, self._separator = _LLAMA3_NEXT, LLAMA3_SEPARATOR
        self._may_call = self._is_parallel

    def call_failed(self) -> None:
        self._may_call = False


def _before_tag(text: str) -> str:
    """`text` up to where a tag, and whitespace in front of it, may have begun."""
    stripped = text.rstrip()
    if stripped.endswith(HERMES_OPEN):
        return stripped.removesuffix(HERMES_OPEN).rstrip()
    if stripped == text:
        for length in range(len(HERMES_OPEN) - 1, 0, -1):
            if text.endswith(HERMES_OPEN[:length]):
                return text[:-length].rstrip()
    return stripped
