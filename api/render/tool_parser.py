"""Extracts tool calls from a model's text while it is generated. Pure.

A call names an offered tool and has a JSON object as its arguments. Anything else that resembles a
call remains text. Only the markers of calls, and whitespace around them, are removed.
"""

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from api.render.json_scan import ObjectScan
from api.render.tool_markers import call_finder
from shared.protocol.tools import ToolUse

_HEAD = re.compile(
    r'\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*'
    r'"(?:arguments|parameters)"\s*:\s*'
)
"""Start of a call's object, up to the arguments.

Only calls that start in this form can be emitted before they are complete.
"""


@dataclass(frozen=True, slots=True)
class Text:
    """Text that isn't part of a call."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """Start of a tool call, with the name of the tool."""

    index: int
    """Number of earlier calls in the same choice."""
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """Next part of a call's arguments, as JSON text."""

    index: int
    """Index of the call, as in its `CallStart`."""
    text: str


Piece = Text | CallStart | CallArguments


@dataclass(slots=True)
class _Candidate:
    """Text that may turn out to be a call."""

    markers: str
    """Text before the object: an opening tag or a separator, with whitespace."""
    scan: ObjectScan = field(default_factory=ObjectScan)
    num_emitted: int | None = None
    """Index in the object's text at which the emitted part of the arguments ends.

    None until the `CallStart` is emitted.
    """


class ToolCallParser:
    """Separates the tool calls in the output of one choice from the other text.

    With `emits_early`, the arguments of a call are emitted as they arrive. If the call turns out to
    be malformed, the part that has been emitted remains. The rest is emitted as text.

    Without `emits_early`, a call is emitted when it is complete, and a malformed call is emitted as
    text.
    """

    def __init__(self, use: ToolUse, *, emits_early: bool) -> None:
        self.num_calls = 0
        self._names = use.names
        self._finder = call_finder(use)
        self._emits_early = emits_early
        self._held = ""
        self._candidate: _Candidate | None = None

    def feed(self, text: str) -> list[Piece]:
        """Process more text and return the completed pieces.

        Characters that may belong to a call are held back until it is clear whether they do.
        """
        self._held += text
        return list(self._advance())

    def close(self) -> list[Piece]:
        """End the text, and emit the characters that are still held back as text."""
        pieces = list(self._reject(self._candidate)) if self._candidate else []
        rest, self._held = self._held, ""
        if rest.strip() or (rest and not self.num_calls):
            pieces.append(Text(rest))
        return pieces

    def _advance(self) -> Iterator[Piece]:
        while candidate := self._candidate or (yield from self._find()):
            yield from self._scan(candidate)
            if self._candidate:
                return  # the candidate's object isn't complete yet

    def _find(self) -> Generator[Piece, None, _Candidate | None]:
        split = self._finder.split(self._held)
        if split.text:
            yield Text(split.text)
        self._held = split.held
        if split.object_at is not None:
            self._candidate = _Candidate(self._held[: split.object_at])
            self._held = self._held[split.object_at :]
        return self._candidate

    def _scan(self, candidate: _Candidate) -> Iterator[Piece]:
        scan = candidate.scan
        self._held = scan.feed(self._held)
        if self._emits_early:
            yield from self._emit(candidate)
        if scan.is_broken:
            yield from self._reject(candidate)
        elif scan.is_closed:
            yield from self._complete(candidate)

    def _emit(self, candidate: _Candidate) -> Iterator[Piece]:
        """Emit the part of a call that has arrived but hasn't been emitted yet."""
        scan = candidate.scan
        start = candidate.num_emitted
        if start is None:
            name, start = _name_in_head(scan), scan.inner_start
            if start is None or name not in self._names:
                return
            yield self._start(name)
        end = candidate.num_emitted = len(scan.text) if scan.inner_end is None else scan.inner_end
        if end > start:
            yield CallArguments(self.num_calls - 1, scan.text[start:end])

    def _complete(self, candidate: _Candidate) -> Iterator[Piece]:
        """Emit the rest of a candidate whose object is complete, either as a call or as text."""
        if candidate.num_emitted is None:
            found = _read_call(candidate.scan)
            if found is None or found[0] not in self._names:
                yield from self._reject(candidate)
                return
            name, arguments = found
            yield self._start(name)
            yield CallArguments(self.num_calls - 1, arguments)
        self._candidate = None
        self._finder.call_ended()

    def _reject(self, candidate: _Candidate) -> Iterator[Piece]:
        """Emit, as text, the part of the candidate that hasn't been emitted yet."""
        self._candidate = None
        self._finder.call_failed()
        text = candidate.scan.text[candidate.num_emitted or 0 :]
        if candidate.num_emitted is None:
            text = candidate.markers + text
        if text:
            yield Text(text)

    def _start(self, name: str) -> CallStart:
        self.num_calls += 1
        return CallStart(self.num_calls - 1, name)


def _name_in_head(scan: ObjectScan) -> str | None:
    """Return the tool name if `_HEAD` matches the text before the arguments, or None otherwise."""
    head = _HEAD.fullmatch(scan.text, 0, scan.inner_start or 0)
    name = _loads(head[1]) if head else None
    return name if isinstance(name, str) else None


def _read_call(scan: ObjectScan) -> tuple[str, str] | None:
    """Return the tool name and arguments in a complete object, or None if it isn't a call."""
    call = _loads(scan.text)
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    arguments = call.get("arguments", call.get("parameters"))
    if isinstance(arguments, str):  # some models write the arguments as a JSON string
        is_object = isinstance(_loads(arguments), dict)
        return (call["name"], arguments) if is_object else None
    if not isinstance(arguments, dict | None):
        return None
    if _name_in_head(scan):  # keeps the arguments as the model wrote them
        return call["name"], scan.text[scan.inner_start : scan.inner_end]
    return call["name"], orjson.dumps(arguments or {}).decode()


def _loads(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
