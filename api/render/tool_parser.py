"""Extracts tool calls from a model's text while it is generated. Pure.

A call names an offered tool and has a JSON object as its arguments. Anything else that resembles a
call remains text, unless a limit of tokens cuts it. Only the markers of calls, and whitespace
around them, are removed.
"""

import hashlib
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from api.render.tool_forms.families import CallBody
from api.render.tool_forms.json_body import may_be_call
from api.render.tool_markers import CallFinder
from shared.protocol.ids import JobId
from shared.protocol.tools import ToolUse

_SLICE = 1024
"""Number of characters that are processed at once.

When a call ends, the text after it is copied. Slices limit how much text is copied each time, so
that the time for a long text with many calls is linear.
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
    """Text before the call's body: an opening tag or a separator, and whitespace around it."""
    body: CallBody
    num_emitted: int | None = None
    """Index in the body's text at which the emitted part of the arguments ends.

    None until the `CallStart` is emitted.
    """


class ToolCallParser:
    """Separates the tool calls in the output of one choice from the other text.

    With `emits_early`, the arguments of a call are emitted as they arrive, if the model writes them
    as JSON. If the call turns out to be malformed, the emitted arguments aren't taken back, and the
    rest is emitted as text.

    Without `emits_early`, a call is emitted when it is complete, and a malformed call is emitted as
    text.

    With `is_constrained`, the answer either starts with a call, or matches a schema or another
    constraint. In the second case it is all text.
    """

    def __init__(self, use: ToolUse, *, emits_early: bool, is_constrained: bool = False) -> None:
        self.num_calls = 0
        self._names = use.names
        self._finder = CallFinder(use, is_constrained=is_constrained)
        self._emits_early = emits_early
        self._held = ""
        self._candidate: _Candidate | None = None

    def feed(self, text: str) -> list[Piece]:
        """Process more text and return the completed pieces.

        Characters that may belong to a call are held back until it is clear whether they do.
        """
        pieces = list[Piece]()
        for start in range(0, len(text), _SLICE):
            self._held += text[start : start + _SLICE]
            pieces += self._advance()
        return _merged(pieces)

    def close(self, *, is_cut: bool = False) -> list[Piece]:
        """End the text, and emit the characters that are still held back.

        With `is_cut`, a limit of tokens has ended the text. A call whose name is complete is then
        emitted with its arguments so far. A call whose name isn't complete is left out, and so are
        incomplete markers. Without `is_cut`, the characters that are held back are emitted as text.
        """
        pieces = list[Piece]()
        if self._candidate:
            pieces += self._cut(self._candidate) if is_cut else self._reject(self._candidate)
        held, self._held = self._held, ""
        rest = self._finder.cut_text(held) if is_cut else self._finder.last_text(held)
        if rest.strip() or (rest and not self.num_calls):
            pieces.append(Text(rest))
        return _merged(pieces)

    def _advance(self) -> Iterator[Piece]:
        while candidate := self._candidate or (yield from self._find()):
            yield from self._read(candidate)
            if self._candidate:
                return  # the candidate's body isn't complete yet

    def _find(self) -> Generator[Piece, None, _Candidate | None]:
        split = self._finder.split(self._held)
        if split.text:
            yield Text(split.text)
        self._held = split.held
        if split.body:
            self._candidate = _Candidate(self._held[: split.body_at], split.body)
            self._held = self._held[split.body_at :]
        return self._candidate

    def _read(self, candidate: _Candidate) -> Iterator[Piece]:
        body = candidate.body
        self._held = body.feed(self._held)
        if self._emits_early:
            yield from self._emit(candidate)
        if body.is_broken:
            yield from self._reject(candidate)
        elif body.is_closed:
            yield from self._complete(candidate)

    def _emit(self, candidate: _Candidate) -> Iterator[Piece]:
        """Emit the part of a call that has arrived but hasn't been emitted yet."""
        start = candidate.num_emitted
        if start is None:
            head = candidate.body.head()
            if head is None or head.name not in self._names:
                return
            start = head.start
            yield self._start(head.name)
        arguments = candidate.body.arguments(start)
        candidate.num_emitted = start + len(arguments)
        if arguments:
            yield CallArguments(self.num_calls - 1, arguments)

    def _complete(self, candidate: _Candidate) -> Iterator[Piece]:
        """Emit the rest of a candidate with a complete body, either as a call or as text."""
        if candidate.num_emitted is None:
            found = candidate.body.call()
            if found is None or found[0] not in self._names:
                yield from self._reject(candidate)
                return
            name, arguments = found
            yield self._start(name)
            yield CallArguments(self.num_calls - 1, arguments)
        self._candidate = None
        self._finder.call_ended()

    def _cut(self, candidate: _Candidate) -> Iterator[Piece]:
        """Emit the part of a call that has arrived, if the call names a tool."""
        if candidate.num_emitted is not None:
            self._candidate = None
            return
        body = candidate.body
        found = body.cut()
        if found and found[0] in self._names:
            self._candidate = None
            yield self._start(found[0])
            if found[1]:
                yield CallArguments(self.num_calls - 1, found[1])
        elif not found and self._may_be_call(candidate):
            self._candidate = None
        else:
            yield from self._reject(candidate)

    def _may_be_call(self, candidate: _Candidate) -> bool:
        is_marked = bool(candidate.markers.strip())
        return may_be_call(candidate.body.text(), self._names, is_marked=is_marked)

    def _reject(self, candidate: _Candidate) -> Iterator[Piece]:
        """Emit, as text, the part of the candidate that hasn't been emitted yet."""
        self._candidate = None
        self._finder.call_failed()
        text = candidate.body.text(candidate.num_emitted or 0)
        if candidate.num_emitted is None:
            text = candidate.markers + text
        if text:
            yield Text(text)

    def _start(self, name: str) -> CallStart:
        self.num_calls += 1
        return CallStart(self.num_calls - 1, name)


def call_digest(job_id: JobId, choice: int, call: int) -> str:
    """Return hex digits that identify a call. They don't change if the answer is rendered again."""
    return hashlib.sha256(f"{job_id}:{choice}:{call}".encode()).hexdigest()[:24]


def _merged(pieces: Iterable[Piece]) -> list[Piece]:
    """Join adjacent pieces of text, and adjacent pieces of one call's arguments."""
    merged = list[Piece]()
    for kind, group in groupby(pieces, key=_kind):
        match kind:
            case CallStart():
                merged.append(kind)
            case None:
                merged.append(Text(_joined(group)))
            case index:
                merged.append(CallArguments(index, _joined(group)))
    return merged


def _kind(piece: Piece) -> CallStart | int | None:
    """Return a value that is equal for two pieces only if they can be joined."""
    match piece:
        case Text():
            return None
        case CallArguments():
            return piece.index
        case CallStart():
            return piece


def _joined(pieces: Iterable[Piece]) -> str:
    return "".join(piece.text for piece in pieces if not isinstance(piece, CallStart))
