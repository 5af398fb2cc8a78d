"""Finds where tool calls may start in a model's text. Pure."""

import re
from dataclasses import dataclass
from typing import Protocol

from shared.protocol.tools import HERMES_CLOSE, HERMES_OPEN, LLAMA3_SEPARATOR, ToolForm, ToolUse

_HERMES_CALL = re.compile(re.escape(HERMES_OPEN) + r"\s*\{")
_LLAMA3_FIRST = re.compile(r"\s*\{")
_LLAMA3_NEXT = re.compile(rf"\s*{LLAMA3_SEPARATOR}\s*\{{")


@dataclass(frozen=True, slots=True)
class Split:
    """Text split at the place where the next call may start."""

    text: str
    """Text that is certainly not part of a call."""
    held: str
    """Rest of the text: markers and the start of a call, or characters that may become markers."""
    object_at: int | None
    """Index in `held` at which the call's JSON object starts; None if no call has started yet."""


class CallFinder(Protocol):
    """Finds the tool calls in one text, in order."""

    def split(self, text: str) -> Split:
        """Search for the next call. `text` is the part of an answer that isn't processed yet."""

    def call_ended(self) -> None:
        """Handle the end of a call's JSON object. Pass the text after it to the next `split`."""

    def call_failed(self) -> None:
        """Handle an object that isn't a call. Pass the text after it to the next `split`."""


def call_finder(use: ToolUse) -> CallFinder:
    """Return the finder for the syntax in which the model writes calls."""
    if use.form is ToolForm.HERMES:
        return _HermesFinder(is_parallel=use.is_parallel)
    return _Llama3Finder(is_parallel=use.is_parallel)


class _HermesFinder:
    """Hermes syntax: each call is enclosed in tags, anywhere in the text."""

    def __init__(self, *, is_parallel: bool) -> None:
        self._is_parallel = is_parallel
        self._may_call = True
        self._expects_close = False

    def split(self, text: str) -> Split:
        if self._expects_close:
            rest = text.lstrip()
            if HERMES_CLOSE.startswith(rest) and rest != HERMES_CLOSE:
                return Split("", text, None)
            self._expects_close = False
            text = rest.removeprefix(HERMES_CLOSE) if rest.startswith(HERMES_CLOSE) else text
        if not self._may_call:
            return Split(text, "", None)
        found = _HERMES_CALL.search(text)
        before = text[: found.start()].rstrip() if found else _before_tag(text)
        held = text[len(before) :]
        return Split(before, held, found.end() - 1 - len(before) if found else None)

    def call_ended(self) -> None:
        self._expects_close = True
        self._may_call = self._is_parallel

    def call_failed(self) -> None:
        pass  # another call may follow


class _Llama3Finder:
    """Llama 3 syntax: the whole text consists of calls, or contains no call."""

    def __init__(self, *, is_parallel: bool) -> None:
        self._is_parallel = is_parallel
        self._may_call = True
        self._start, self._separator = _LLAMA3_FIRST, ""

    def split(self, text: str) -> Split:
        if self._may_call:
            if found := self._start.match(text):
                return Split("", text, found.end() - 1)
            if text.strip() in ("", self._separator):
                return Split("", text, None)
        self._may_call = False
        return Split(text, "", None)

    def call_ended(self) -> None:
        self._start, self._separator = _LLAMA3_NEXT, LLAMA3_SEPARATOR
        self._may_call = self._is_parallel

    def call_failed(self) -> None:
        self._may_call = False


def _before_tag(text: str) -> str:
    """Remove an opening tag, or the start of an opening tag, from the end of `text`.

    Whitespace around the tag is removed as well. If there is no tag, trailing whitespace is
    removed, because a tag may follow.
    """
    stripped = text.rstrip()
    if stripped.endswith(HERMES_OPEN):
        return stripped.removesuffix(HERMES_OPEN).rstrip()
    if stripped == text:
        for length in range(len(HERMES_OPEN) - 1, 0, -1):
            if text.endswith(HERMES_OPEN[:length]):
                return text[:-length].rstrip()
    return stripped
