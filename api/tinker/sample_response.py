"""Encodes answers as the protobuf message `SampleResponse` of Tinker's public API. Pure.

Tinker's client accepts no JSON. The message has few fields, so this module writes the wire format
(https://protobuf.dev/programming-guides/encoding) itself.
"""

import json
import math
import struct
from collections.abc import Sequence
from typing import Any

from api.follow.transcript import ChoiceTranscript
from api.tinker.translate import LAST_N, TOP_PROMPT, TOP_SAMPLE
from shared.protocol.answers import AnswerSpec
from shared.protocol.results import FinishReason, Usage

MEDIA_TYPE = "application/x-protobuf"
NO_LOGPROB = -99999.0
"""Log-probability in each place of a row that has no token, because the row has too few."""
_LENGTH = 1
"""Number of the stop reason `length` in protobuf. The reason `stop` has the number 0, so it isn't
encoded."""
Tops = Sequence[Sequence[tuple[int, float]]]
"""For each position, the most likely tokens with their log-probabilities."""


def encode_response(spec: AnswerSpec, choices: Sequence[ChoiceTranscript], usage: Usage) -> bytes:
    """Return the message for the answers of a job."""
    wanted = spec.request or {}
    sequences = [_bytes(1, _sequence(choice, wanted[TOP_SAMPLE])) for choice in choices]
    prompt = b""
    if spec.has_prompt_scores:
        prompt = _prompt(json.loads(choices[0].prompt_scores), wanted)
    return b"".join(sequences) + prompt + _number(4, usage.cached_tokens)


def _sequence(choice: ChoiceTranscript, num_top: int) -> bytes:
    message = _number(1, _LENGTH if choice.finish is FinishReason.LENGTH else 0)
    message += _bytes(2, _int32s(choice.ids))
    message += _bytes(3, _floats([position.chosen.logprob for position in choice.logprobs]))
    if num_top:
        tops = [
            [(_token_id(token.token), token.logprob or 0.0) for token in position.top]
            for position in choice.logprobs
        ]
        message += _bytes(4, _top(tops, num_top))
    return message


def _prompt(scores: Sequence[dict[str, Any] | None], wanted: dict[str, Any]) -> bytes:
    """Return the fields about the prompt. `scores` has the form of `Tokens.prompt_scores`."""
    first = len(scores) - (wanted[LAST_N] or len(scores))
    found = [each if i >= first else None for i, each in enumerate(scores)]
    # The prompt's own token is the first key of each position.
    own = [next(iter(each.values()))["logprob"] if each else None for each in found]
    message = _bytes(2, _floats(own))
    if num_top := wanted[TOP_PROMPT]:
        message += _bytes(3, _top([_likeliest(each or {}, num_top) for each in found], num_top))
    return message


def _likeliest(scores: dict[str, Any], num_top: int) -> list[tuple[int, float]]:
    ranked = sorted(scores.items(), key=lambda item: int(item[1]["rank"]))
    likeliest = [(int(token), each["logprob"]) for token, each in ranked]
    return likeliest[:num_top]


def _top(tops: Tops, num_top: int) -> bytes:
    """Return a message `TopkLogprobs`: two matrices with a row for each position."""
    rows = [[*top, *[(0, NO_LOGPROB)] * (num_top - len(top))] for top in tops]
    ids = _bytes(1, _int32s([token for row in rows for token, _ in row]))
    logprobs = _bytes(2, _floats([logprob for row in rows for _, logprob in row]))
    return ids + logprobs + _number(3, num_top) + _number(4, len(rows))


def _token_id(name: str) -> int:
    """Return the token id in a name such as `token_id:5`."""
    return int(name.removeprefix("token_id:"))


def _int32s(values: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def _floats(values: Sequence[float | None]) -> bytes:
    return struct.pack(f"<{len(values)}f", *(math.nan if v is None else v for v in values))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value) if value else b""


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
