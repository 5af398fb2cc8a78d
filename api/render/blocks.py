"""Divides the output of a choice into blocks of text, reasoning and tool calls. Pure.

The blocks are a function of the output: they don't depend on the pieces in which it arrives. Each
event has a position: the number of characters of output that precede it. The end of the output
counts as one more character: the events at the end have a position that is one higher than the
number of characters.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from pydantic_core import from_json

from api.follow.transcript import ChoiceTranscript, Delta
from api.render.reasoning import ReasoningParser, Split
from api.render.tool_parser import (
    CallArguments,
    CallStart,
    Piece,
    Text,
    ToolCallParser,
    call_digest,
)
from shared.protocol.answers import AnswerSpec
from shared.protocol.logprobs import PositionLogprobs
from shared.protocol.results import FinishReason


class BlockKind(StrEnum):
    """Kind of a block."""

    TEXT = "text"
    """Text for the user."""
    REASONING = "reasoning"
    """The model's reasoning."""
    CALL = "call"
    """Call of a tool. The text of the block is the arguments, as JSON text."""


@dataclass(slots=True)
class Block:
    """One block of the output. It grows until it is closed."""

    index: int
    kind: BlockKind
    name: str = ""
    """Name of the called tool; empty for blocks of other kinds."""
    call: str = ""
    """Hex digits that identify the call. The API's id of the call is formed from them."""
    parts: list[str] = field(default_factory=list)
    logprobs: list[PositionLogprobs] = field(default_factory=list)
    """Log-probabilities of the tokens in a block of text, if the answer reports them."""

    is_closed: bool = False
    finish: FinishReason | None = None
    """Why the output ended in this block; None if the output continued after the block."""

    @property
    def text(self) -> str:
        """Text of the block so far."""
        return "".join(self.parts)

    @property
    def arguments(self) -> Any:
        """Arguments of the call. If the call was cut, only the complete values are included."""
        return from_json(self.text, allow_partial=True) if self.parts else {}


@dataclass(frozen=True, slots=True)
class Opened:
    """A block begins. It has no text yet."""

    block: Block


@dataclass(frozen=True, slots=True)
class Added:
    """New text of the open block."""

    block: Block
    text: str
    logprobs: tuple[PositionLogprobs, ...] = ()


@dataclass(frozen=True, slots=True)
class Closed:
    """A block ends. Its text is complete."""

    block: Block


BlockEvent = Opened | Added | Closed


class BlockReader:
    """Divides the output of the only choice of a job into blocks.

    An empty output becomes one empty block of text. A call is reported when it is complete. A
    malformed call becomes part of a block of text.
    """

    def __init__(self, spec: AnswerSpec) -> None:
        self.blocks: list[Block] = []
        self.num_chars = 0
        """Number of characters of output so far. It is one higher once the output has ended."""
        self.finish: FinishReason | None = None
        self.stop = ""
        """Stop sequence that ended the output, if the view reports it."""
        self._job_id = spec.id
        self._tools = (
            ToolCallParser(spec.tools, emits_early=False, is_constrained=spec.is_constrained)
            if spec.tools
            else None
        )
        self._reasoning = ReasoningParser(spec.reasoning) if spec.reasoning else None
        self._hides_reasoning = spec.hides_reasoning
        self._open: Block | None = None
        self._logprobs: deque[PositionLogprobs] = deque()

    def feed(self, delta: Delta) -> Iterator[tuple[int, BlockEvent]]:
        """Process more output, and return its events with their positions."""
        self._logprobs += delta.logprobs
        for text in self._pieces(delta.text):
            self.num_chars += len(text)
            split = self._reasoning.feed(text) if self._reasoning else Split(content=text)
            for event in self._split(split):
                yield self.num_chars, event
        if delta.finish:
            self.finish = delta.finish
            self.num_chars += 1
            for event in self._end():
                yield self.num_chars, event

    def _pieces(self, text: str) -> Iterable[str]:
        """Divide text into pieces, so that events don't depend on how the output arrives.

        Parsers hold text back, so they get one character at a time. Without a parser, only a
        character that opens a block is a piece of its own.
        """
        if self._tools or self._reasoning:
            return text
        return filter(None, (text,) if self._open else (text[:1], text[1:]))

    def _split(self, split: Split) -> Iterator[BlockEvent]:
        if split.reasoning and not self._hides_reasoning:
            yield from self._reasoned(split.reasoning)
        if split.content:
            content = split.content
            for piece in self._tools.feed(content) if self._tools else [Text(content)]:
                yield from self._events(piece)

    def _reasoned(self, text: str) -> Iterator[BlockEvent]:
        if self._open is None:
            yield self._start(BlockKind.REASONING)
        yield self._add(text)
        self._taken(self.num_chars)  # reasoning has no log-probabilities

    def _events(self, piece: Piece) -> Iterator[BlockEvent]:
        match piece:
            case Text():
                if self._open is None or self._open.kind is not BlockKind.TEXT:
                    yield from self._close()
                    yield self._start(BlockKind.TEXT)
                yield self._add(piece.text, self._taken(self.num_chars))
            case CallStart():
                yield from self._close()
                yield self._start(BlockKind.CALL, piece)
            case CallArguments():
                yield self._add(piece.text)
                self._taken(self.num_chars)  # a call has no log-probabilities
                yield from self._close(self.finish)

    def _end(self) -> Iterator[BlockEvent]:
        if self._reasoning:
            yield from self._split(self._reasoning.close())
        is_cut = self.finish is FinishReason.LENGTH
        for piece in self._tools.close(is_cut=is_cut) if self._tools else ():
            yield from self._events(piece)
        if not self.blocks:
            yield self._start(BlockKind.TEXT)
        if self._open is not None:
            if self._logprobs and self._open.kind is BlockKind.TEXT:
                yield self._add(
                    "", self._taken(None)
                )  # log-probabilities of the end-of-sequence token
            yield from self._close(self.finish)

    def _start(self, kind: BlockKind, call: CallStart | None = None) -> Opened:
        block = Block(index=len(self.blocks), kind=kind)
        if call is not None:
            block.name, block.call = call.name, call_digest(self._job_id, 0, call.index)
        self.blocks.append(block)
        self._open = block
        return Opened(block)

    def _add(self, text: str, logprobs: tuple[PositionLogprobs, ...] = ()) -> Added:
        assert self._open is not None
        self._open.parts.append(text)
        self._open.logprobs += logprobs
        return Added(self._open, text, logprobs)

    def _close(self, finish: FinishReason | None = None) -> Iterator[Closed]:
        block, self._open = self._open, None
        if block is not None:
            block.is_closed, block.finish = True, finish
            yield Closed(block)

    def _taken(self, end: int | None) -> tuple[PositionLogprobs, ...]:
        """Take the log-probabilities of the tokens that begin before `end`; all if it is None."""
        taken = []
        while self._logprobs and (end is None or self._logprobs[0].offset < end):
            taken.append(self._logprobs.popleft())
        return tuple(taken)


def without_stop(spec: AnswerSpec, delta: Delta) -> tuple[Delta, str]:
    """Return a delta without the stop sequence that ends its text, and this stop sequence.

    If no stop sequence ends the text, the delta is unchanged and the second value is empty.

    Only the last delta can end with a stop sequence, because workers hold back text that could
    belong to a stop sequence.
    """
    if delta.finish is FinishReason.STOP:
        for stop in (spec.request or {}).get("stop_sequences", ()):
            if delta.text.endswith(stop):
                return replace(delta, text=delta.text.removesuffix(stop)), stop
    return delta, ""


def read_blocks(spec: AnswerSpec, choice: ChoiceTranscript) -> BlockReader:
    """Return a reader that has read the complete output `choice`."""
    reader = BlockReader(spec)
    output = Delta(0, choice.text, choice.finish, tuple(choice.logprobs))
    delta, reader.stop = without_stop(spec, output)
    for _ in reader.feed(delta):
        pass
    return reader
