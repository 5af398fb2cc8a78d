"""From token ids and their logprobs to what clients are told of them."""

from collections.abc import Sequence

from shared.protocol.logprobs import PositionLogprobs, TokenLogprob
from worker.engine.request import TokenLogprobs
from worker.text.detokenizer import TextStream


def described(token_id: int, logprobs: TokenLogprobs, stream: TextStream) -> PositionLogprobs:
    """What is told of a token that `stream` hasn't been fed yet."""
    return PositionLogprobs(
        chosen=_described(token_id, logprobs.logprob, stream),
        top=tuple(_described(other, logprob, stream) for other, logprob in logprobs.top),
        offset=stream.num_chars,
    )


def described_prompt(
    ids: Sequence[int], logprobs: Sequence[TokenLogprobs], stream: TextStream
) -> tuple[PositionLogprobs, ...]:
    """What is told of a prompt; `logprobs` are those of its tokens from the second on.

    Feeds all of it to the fresh `stream`.
    """
    first = _described(ids[0], None, stream)
    positions = [PositionLogprobs(chosen=first, top=(), offset=0)]
    stream.feed(ids[0])
    for token_id, found in zip(ids[1:], logprobs, strict=True):
        positions.append(described(token_id, found, stream))
        stream.feed(token_id)
    return tuple(positions)


def _described(token_id: int, logprob: float | None, stream: TextStream) -> TokenLogprob:
    text, raw = stream.spelling(token_id)
    return TokenLogprob(token=text, logprob=logprob, bytes=tuple(raw) if raw is not None else None)
