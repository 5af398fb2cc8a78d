"""Describes token logprobs in the form that clients receive.

`running_choice.py` decides whether the token that ends an answer has logprobs. `requests.py` limits
the number of logprobs of prompts' tokens.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import orjson

from shared.protocol.logprobs import PositionLogprobs, TokenLogprob
from worker.engine.request import TokenLogprobs
from worker.text.detokenizer import TextStream, TokenTable


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
    ids: Sequence[int], logprobs: Sequence[TokenLogprobs], stream: TextStream, *, num_top: int
) -> tuple[PositionLogprobs, ...]:
    """Return the logprobs of each prompt token in the form that clients receive.

    `logprobs` has an entry for each of `ids` except the first. All tokens are added to the
    empty `stream`. Each position has at most `num_top` likeliest tokens.
    """
    first = _describe_token(ids[0], None, stream)
    positions = [PositionLogprobs(chosen=first, top=(), offset=0)]
    stream.feed(ids[0])
    for token_id, of_token in zip(ids[1:], logprobs, strict=True):
        listed = replace(of_token, top=of_token.top[:num_top])
        positions.append(describe_position(token_id, listed, stream))
        stream.feed(token_id)
    return tuple(positions)


def score_prompt(
    ids: Sequence[int], logprobs: Sequence[TokenLogprobs], table: TokenTable, *, num_top: int
) -> str:
    """Return JSON with the scores of each prompt token and of the likeliest tokens at its position.

    The JSON is a list in the form of vLLM's `prompt_logprobs`, with the `num_top` likeliest tokens
    at each position. `logprobs` has an entry with ranks for each of `ids` except the first.
    """
    text_of = cache(lambda token_id: _json_text(token_id, table))
    positions = ["null"]
    for token_id, of_token in zip(ids[1:], logprobs, strict=True):
        assert of_token.rank is not None
        top = of_token.top[:num_top]
        found = {token_id: (of_token.logprob, of_token.rank)}
        found |= {other: (logprob, rank) for rank, (other, logprob) in enumerate(top, start=1)}
        scores = (
            f'"{other}":{{"logprob":{logprob!r},"rank":{rank},"decoded_token":{text_of(other)}}}'
            for other, (logprob, rank) in found.items()
        )
        positions.append(f"{{{','.join(scores)}}}")
    return f"[{','.join(positions)}]"


def _json_text(token_id: int, table: TokenTable) -> str:
    """Return a JSON string: the token's text inside a longer text, or a special token's name."""
    text = table.inside(token_id).decode(errors="replace") or table.name(token_id)
    return orjson.dumps(text).decode()


def _describe_token(token_id: int, logprob: float | None, stream: TextStream) -> TokenLogprob:
    if stream.tokens_as_ids:  # as in vLLM, the bytes are also those of the id
        name = f"token_id:{token_id}"
        return TokenLogprob(token=name, logprob=logprob, bytes=tuple(name.encode()))
    text, raw = stream.next_token_text(token_id)
    return TokenLogprob(token=text, logprob=logprob, bytes=tuple(raw) if raw is not None else None)
