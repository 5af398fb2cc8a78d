"""Finds the tool calls in a model's text as it grows. Pure.

What only looks like a call stays text, and no text is lost: only marks of calls, and whitespace
around them, are left out. A call names an offered tool and has an object as arguments.
"""

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from api.render.json_scan import ObjectScan
from api.render.tool_markers import marks_of
from shared.protocol.tools import ToolUse

_HEAD = re.compile(
    r'\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*'
    r'"(?:arguments|parameters)"\s*:\s*'
)
"""All that may stand in front of arguments that are shown before the call is whole."""


@dataclass(frozen=True, slots=True)
class Text:
    """Text that isn't part of a call."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call begins."""

    index: int
    """Counts the calls of a choice, from 0."""
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of a call's arguments: JSON, as the model wrote it."""

    index: int
    text: str


Piece = Text | CallStart | CallArguments


@dataclass(slots=True)
class _Call:
    """What may be a call, in the making."""

    marks: str
    """Stands in front of the object."""
    scan: ObjectScan = field(default_factory=ObjectScan)
    num_shown: int | None = None
    """Length of the object up to the arguments that were shown last; None: it isn't shown yet."""


class ToolCallParser:
    """Splits the text of one choice into what it says and what it calls.

    With `shows_early`, arguments are shown while they grow, and text that turns out to be malformed
    then has begun as a call. Without, all of it stays text.
    """

    def __init__(self, use: ToolUse, *, shows_early: bool) -> None:
        self.num_calls = 0
        self._names = use.names
        self._marks = marks_of(use)
        self._shows_early = shows_early
        self._held = ""
        self._call: _Call | None = None

    def feed(self, text: str) -> list[Piece]:
        """What `text` adds. What may turn out to belong to a call is held back."""
        self._held += text
        return list(self._advance())

    def close(self) -> list[Piece]:
        """What was held back, now that no text follows."""
        pieces = list(self._give_up(self._call)) if self._call else []
        rest, self._held = self._held, ""
        if rest.strip() or (rest and not self.num_calls):
            pieces.append(Text(rest))
        return pieces

    def _advance(self) -> Iterator[Piece]:
        while call := self._call or (yield from self._seek()):
            yield from self._go_on(call)
            if self._call:
                return  # there is more to come

    def _seek(self) -> Generator[Piece, None, _Call | None]:
        sought = self._marks.seek(self._held)
        if sought.text:
            yield Text(sought.text)
        self._held = sought.held
        if sought.object_at is not None:
            self._call = _Call(self._held[: sought.object_at])
            self._held = self._held[sought.object_at :]
        return self._call

    def _go_on(self, call: _Call) -> Iterator[Piece]:
        scan = call.scan
        self._held = scan.feed(self._held)
        if self._shows_early:
            yield from self._show(call)
        if scan.is_broken:
            yield from self._give_up(call)
        elif scan.is_closed:
            yield from self._conclude(call)

    def _show(self, call: _Call) -> Iterator[Piece]:
        """What can be told of a call that isn't whole."""
        scan = call.scan
        start = call.num_shown
        if start is None:
            name, start = _name_in_head(scan), scan.inner_start
            if start is None or name not in self._names:
                return
            yield self._start(name)
        call.num_shown = len(scan.text) if scan.inner_end is None else scan.inner_end
        if call.num_shown > start:
            yield CallArguments(self.num_calls - 1, scan.text[start : call.num_shown])

    def _conclude(self, call: _Call) -> Iterator[Piece]:
        """End a call whose object is whole; if that is none of a call, it is text."""
        if call.num_shown is None:
            found = _read_call(call.scan)
            if found is None or found[0] not in self._names:
                yield from self._give_up(call)
                return
            name, arguments = found
            yield self._start(name)
            yield CallArguments(self.num_calls - 1, arguments)
        self._call = None
        self._marks.call_ended()

    def _give_up(self, call: _Call) -> Iterator[Piece]:
        """Go on with text, and all that wasn't shown of `call` is text."""
        self._call = None
        self._marks.call_failed()
        text = call.scan.text[call.num_shown or 0 :]
        if call.num_shown is None:
            text = call.marks + text
        if text:
            yield Text(text)

    def _start(self, name: str) -> CallStart:
        self.num_calls += 1
        return CallStart(self.num_calls - 1, name)


def _name_in_head(scan: ObjectScan) -> str | None:
    """The name of a call whose arguments have begun, and nothing unusual stands before them."""
    head = _HEAD.fullmatch(scan.text, 0, scan.inner_start or 0)
    name = _loads(head[1]) if head else None
    return name if isinstance(name, str) else None


def _read_call(scan: ObjectScan) -> tuple[str, str] | None:
    """The name and the arguments of a whole object, if it is a call."""
    call = _loads(scan.text)
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    arguments = call.get("arguments", call.get("parameters"))
    if isinstance(arguments, str):  # some models write JSON into a string
        is_object = isinstance(_loads(arguments), dict)
        return (call["name"], arguments) if is_object else None
    if not isinstance(arguments, dict | None):
        return None
    if _name_in_head(scan):  # as the model wrote them
        return call["name"], scan.text[scan.inner_start : scan.inner_end]
    return call["name"], orjson.dumps(arguments or {}).decode()


def _loads(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
