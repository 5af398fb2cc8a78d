"""Ids of a stream's server-sent events. Pure.

The id of an event states which part of the answer a client has once it has received the event. With
the id and the stored answer, every front end can continue the stream after this event. Examples:

- `start.2`: two opening chunks, and no output.
- `57-0a1b2c3d`: the first 57 characters of the only choice.
- `3.12,,f-0a1b2c3d`: 12 characters and 3 log-probabilities of the first choice, nothing of the
  second choice, and the whole third choice. Only answers with log-probabilities have such counts.
- `4.3.12-0a1b2c3d`: 12 characters, 3 log-probabilities and 4 tokens of the only choice. Only
  answers with token ids or continuous token counts have such counts.
- `57~0:91*2-0a1b2c3d`: the first 57 characters of the only choice, and the first two chunks
  of the delta that reports characters 58 to 91.
- `end`: the whole answer and the token counts, or an error.

The last eight characters are a checksum of the text that precedes the position. It detects an id
that belongs to another answer, and an answer whose beginning was lost and generated again.
"""

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from api.follow.transcript import Delta
from shared.errors import JobFailed, invalid_value
from shared.protocol.answers import AnswerSpec

_CODE = r"(?:f|(?:[0-9]{1,9}\.){0,2}[0-9]{1,9})"
_START = re.compile(r"start\.([0-9]{1,4})")
_MIDDLE = re.compile(
    rf"(?P<codes>{_CODE}?(?:,{_CODE}?)*)"
    rf"(?:~(?P<choice>[0-9]{{1,4}}):(?P<end>{_CODE})\*(?P<chunks>[0-9]{{1,6}}))?"
    r"-(?P<checksum>[0-9a-f]{8})"
)
_MAX_ID_CHARS = 8192
END_ID = "end"


@dataclass(frozen=True, slots=True)
class Sent:
    """How much of one choice a client has received."""

    num_chars: int = 0
    num_logprobs: int = 0
    """Number of log-probabilities, including those of an echoed prompt."""
    num_tokens: int = 0
    """Number of tokens, if the answer depends on the tokens in addition to their text."""
    is_finished: bool = False
    """Whether the client has the whole choice. If so, all counts are 0."""


NOTHING, FINISHED = Sent(), Sent(is_finished=True)


@dataclass(frozen=True, slots=True)
class Cut:
    """Position between two of the chunks that report one delta."""

    choice: int
    end: Sent
    """Part of the choice that a client has once it has all chunks of the delta."""
    num_chunks: int
    """Number of chunks of the delta that precede the position."""


@dataclass(frozen=True, slots=True)
class Opening:
    """Position before the first output."""

    num_chunks: int = 0
    """Number of opening chunks that precede the position."""

    @property
    def id(self) -> str:
        """Id of the event before the position."""
        return f"start.{self.num_chunks}"


@dataclass(frozen=True, slots=True)
class Middle:
    """Position after the opening chunks and before the end of the stream."""

    id: str
    """Id of the event before the position."""
    choices: tuple[Sent, ...]
    """For each choice, the part that the client has.

    If the position is between two chunks of one delta, the part excludes this delta.
    """
    cut: Cut | None
    checksum: int
    """Checksum of the text before the position.

    If the position is between two chunks of one delta, the text includes the whole delta. A delta
    is new output of one choice, which the stream reports in one or more chunks.
    """

    def covered(self, choice: int) -> Sent:
        """Return the part of a choice that the checksum covers."""
        return self.cut.end if self.cut and self.cut.choice == choice else self.choices[choice]


@dataclass(frozen=True, slots=True)
class End:
    """Position after the last event with an id."""

    id: str = END_ID


Position = Opening | Middle | End
START = Opening()


class SentOutput:
    """The output that one stream has sent. It determines the ids of the stream's events."""

    def __init__(self, spec: AnswerSpec) -> None:
        self._spec = spec
        self._sent = [NOTHING] * spec.num_choices
        self._codes = [""] * spec.num_choices
        self._text_checksums = [0] * spec.num_choices

    def add(self, delta: Delta, num_chunks: int) -> list[str]:
        """Add the output in `delta`, and return the ids of its `num_chunks` chunks."""
        before, index = _joined(self._codes), delta.choice
        self._add(delta)
        checksum = f"{_combined(self._text_checksums):08x}"
        end = self._codes[index]
        cuts = [f"{before}~{index}:{end}*{i}-{checksum}" for i in range(1, num_chunks)]
        return [*cuts, f"{_joined(self._codes)}-{checksum}"] if num_chunks else []

    def _add(self, delta: Delta) -> None:
        index, sent = delta.choice, self._sent[delta.choice]
        num_logprobs = sent.num_logprobs + len(delta.logprobs)
        num_tokens = sent.num_tokens + len(delta.ids)
        num_chars = sent.num_chars + len(delta.text)
        sent = FINISHED if delta.finish else Sent(num_chars, num_logprobs, num_tokens)
        self._sent[index] = sent
        self._codes[index] = _code(sent, self._spec)
        so_far = self._text_checksums[index]
        self._text_checksums[index] = zlib.crc32(delta.text.encode(), so_far)


def checksum_of(texts: Iterable[str]) -> int:
    """Return the checksum of a position. `texts` are the choices' texts before the position."""
    return _combined([zlib.crc32(text.encode()) for text in texts])


def parse_event_id(text: str, spec: AnswerSpec, *, param: str) -> Position:
    """Return the position after the event with the id `text` in the stream of `spec`'s job.

    An empty text is the position before the first event.

    Raises:
        JobFailed: the job's stream can't have an event with this id. The error names `param`.
    """
    if text in ("", END_ID):
        return End() if text else START
    found = _START.fullmatch(text)
    if found and int(found[1]) <= spec.num_choices:
        return Opening(int(found[1]))
    found = _MIDDLE.fullmatch(text) if len(text) <= _MAX_ID_CHARS else None
    codes = found["codes"].split(",") if found else []
    if not found or len(codes) > spec.num_choices:
        raise unknown_event_id(text, param)
    choices = [_sent(code, spec, param) for code in codes]
    choices += [NOTHING] * (spec.num_choices - len(codes))
    cut = None
    if found["chunks"]:
        cut = Cut(int(found["choice"]), _sent(found["end"], spec, param), int(found["chunks"]))
        if not (cut.choice < spec.num_choices and _precedes(choices[cut.choice], cut.end)):
            raise unknown_event_id(text, param)
    return Middle(text, tuple(choices), cut, int(found["checksum"], 16))


def _precedes(sent: Sent, end: Sent) -> bool:
    if sent.is_finished or end.is_finished:
        return not sent.is_finished
    return (
        sent.num_chars <= end.num_chars
        and sent.num_logprobs <= end.num_logprobs
        and sent.num_tokens <= end.num_tokens
    )


def _joined(codes: Iterable[str]) -> str:
    return ",".join(codes).rstrip(",")


def _code(sent: Sent, spec: AnswerSpec) -> str:
    if sent.is_finished:
        return "f"
    if sent == NOTHING:
        return ""
    if spec.counts_tokens:
        return f"{sent.num_tokens}.{sent.num_logprobs}.{sent.num_chars}"
    return f"{sent.num_logprobs}.{sent.num_chars}" if spec.has_logprobs else str(sent.num_chars)


def _sent(code: str, spec: AnswerSpec, param: str) -> Sent:
    if code in ("", "f"):
        return FINISHED if code else NOTHING
    *others, num_chars = map(int, code.split("."))
    num_logprobs = others[-1] if others else 0
    if (len(others) > 1 and not spec.counts_tokens) or (num_logprobs and not spec.has_logprobs):
        raise unknown_event_id(code, param)
    return Sent(num_chars, num_logprobs, others[0] if len(others) > 1 else 0)


def _combined(text_checksums: Iterable[int]) -> int:
    return zlib.crc32(b"".join(each.to_bytes(4, "little") for each in text_checksums))


def unknown_event_id(text: str, param: str) -> JobFailed:
    """Return the failure for a `text` that isn't the id of an event of a job's stream."""
    message = f"{param}: {text[:100]!r} isn't the id of an event of this job's stream"
    return invalid_value(message, param)
