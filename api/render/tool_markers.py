"""Finds where tool calls start in a model's text. Pure."""

import re
from dataclasses import dataclass

from api.render.tool_forms.families import SYNTAX, CallBody, CallSyntax
from api.render.tool_forms.pattern import (
    Match,
    Outcome,
    Unfinished,
    match,
    strip_end,
    unfinished_at,
)
from shared.protocol.parameter_types import UNTYPED_VALUES, parameter_types
from shared.protocol.tools import ToolUse


@dataclass(frozen=True, slots=True)
class Split:
    """Text split at the place where the next call may start."""

    text: str
    """Text that isn't part of a call."""
    held: str
    """Rest of the text after `text`: markers and the start of a call, or characters that may become
    markers."""
    body_at: int | None = None
    """Index in `held` at which the call's body starts; None if no call has started yet."""
    body: CallBody | None = None
    """Reader of the call's body; None if no call has started yet."""


class CallFinder:
    """Finds the tool calls in one text, in order."""

    def __init__(self, use: ToolUse, *, is_constrained: bool = False) -> None:
        """Create a finder of calls of these tools.

        With `is_constrained`, the answer either starts with a call, or matches a schema or another
        constraint. In the second case it has no calls, even if a string in it resembles one.
        """
        self._syntax = SYNTAX[use.form]
        self._is_anywhere = self._syntax.is_anywhere and not is_constrained
        self._names = sorted(use.names, key=len, reverse=True)
        self._types = {
            tool["function"]["name"]: parameter_types(tool["function"])
            for tool in (use.tools if use.form in UNTYPED_VALUES else ())
        }
        self._literals = {str(syntax.opens[0]) for syntax in self._syntax.calls}
        self._markers = re.compile("|".join(map(re.escape, sorted(self._literals))))
        self._is_parallel = use.is_parallel
        self._may_call = True
        self._found: CallSyntax | None = None
        """Syntax of the most recently found call; None before the first call."""
        self._has_ended = False
        """Whether a call has just ended, so that closing markers or another call may follow."""

    def split(self, text: str) -> Split:
        """Search for the next call. `text` is the part of an answer that isn't processed yet."""
        if self._has_ended and self._found:
            after = self._after_call(text, self._found)
            if isinstance(after, Split):
                return after
            text = after
        if not self._may_call:
            return Split(text, "")
        return self._search(text) if self._is_anywhere else self._at_start(text)

    def call_ended(self) -> None:
        """Handle the end of a call's body. Callers pass the text after it to the next `split`."""
        self._has_ended = True
        self._may_call = self._is_parallel
        self._is_anywhere = self._syntax.is_anywhere

    def call_failed(self) -> None:
        """Handle a body that isn't a call. Callers pass the text after it to the next `split`."""
        self._may_call = self._may_call and self._is_anywhere

    def last_text(self, text: str) -> str:
        """Return the end of an answer without the markers that close its last call."""
        if self._has_ended and self._found:
            closes = match(self._found.closes, text, 0, self._names, is_final=True)
            return text[closes.end :] if isinstance(closes, Match) else text
        return text

    def cut_text(self, text: str) -> str:
        """Return the end of an answer that was cut, without markers that aren't complete.

        `split` holds back only such markers and whitespace.
        """
        return "" if text.strip() else text

    def _after_call(self, text: str, syntax: CallSyntax) -> Split | str:
        """Return the next call in the same group, or the text after the closing markers."""
        if self._may_call and syntax.continues:
            found = match(syntax.continues, text, 0, self._names)
            if isinstance(found, Match):
                self._has_ended = False
                return self._start("", text, syntax, found)
            if found:
                return Split("", text)
        closes = match(syntax.closes, text, 0, self._names)
        if isinstance(closes, Unfinished):
            return Split("", text)
        self._has_ended = False
        self._may_call = self._may_call and self._syntax.is_anywhere
        return text[closes.end :] if closes else text

    def _search(self, text: str) -> Split:
        for marker in self._markers.finditer(text):
            at = marker.start()
            syntax, found = self._open(text, at)
            if found:
                before = strip_end(text[:at])
                if syntax and isinstance(found, Match):
                    return self._start(before, text, syntax, found)
                return Split(before, text[len(before) :])
        before = strip_end(text[: unfinished_at(text, self._literals)])
        return Split(before, text[len(before) :])

    def _at_start(self, text: str) -> Split:
        syntax, found = self._open(text, 0)
        if syntax and isinstance(found, Match):
            return self._start("", text, syntax, found)
        if found:
            return Split("", text)
        self._may_call = False
        return Split(text, "")

    def _open(self, text: str, at: int) -> tuple[CallSyntax | None, Outcome]:
        """Return the syntax of the call that starts at `at`, and the match of its markers."""
        for syntax in self._syntax.calls:
            if found := match(syntax.opens, text, at, self._names):
                return syntax, found
        return None, None

    def _start(self, before: str, text: str, syntax: CallSyntax, found: Match) -> Split:
        self._found = syntax
        name = found.name or ""
        body = syntax.body(name, self._types.get(name, {}))
        held = text[len(before) :]
        return Split(before, held, found.end - len(before), body)
