"""Describes token logprobs in the form that clients receive."""

from collections.abc import Sequence

from shared.protocol.logprobs import PositionLogprobs, TokenLogprob
from worker.engine.request import TokenLogprobs
from worker.text.detokenizer import TextStream


def describe_position(
    token_id: int, logprobs: TokenLogprobs, stream: TextStream
) -> PositionLogprobs:
    """Return the logprobs of a token and of its alternatives, in the form that clients receive.

    The token is decoded as if it came next in `stream`, but isn't added to the stream.
    """
    return PositionLogprobs(
        chosen=_describe_token(token_id, logprobs.logprob, stream),
        top=tuple(_describe_token(other, logprob, stream) for other, logprob in logprobs.top),
        offset=stream.num_chars,
    )


def describe_prompt(
    ids: Sequence[int], logprobs: Sequence[TokenLogprobs], stream: TextStream
) -> tuple[PositionLogprobs, ...]:
    """Return the logprobs of each prompt token in the form that clients receive.

    Args:
        ids: the prompt's tokens.
        logprobs: logprobs of the tokens from the second one on. The first token has none.
        stream: an empty text stream, to which all tokens are added.
    """
    first = _describe_token(ids[0], None, stream)
    positions = [PositionLogprobs(chosen=first, top=(), offset=0)]
    stream.feed(ids[0])
    for token_id, of_token in zip(ids[1:], logprobs, strict=True):
        positions.append(describe_position(token_id, of_token, stream))
        stream.feed(token_id)
    return tuple(positions)


def _describe_token(token_id: int, logprob: float | None, stream: TextStream) -> TokenLogprob:
    if stream.tokens_as_ids:  # as in vLLM, the bytes are also those of the id
        name = f"token_id:{token_id}"
        return TokenLogprob(token=name, logprob=logprob, bytes=tuple(name.encode()))
    text, raw = stream.next_token_text(token_id)
    return TokenLogprob(token=text, logprob=logprob, bytes=tuple(raw) if raw is not None else None)
