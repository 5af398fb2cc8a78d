"""Checks that a text of the simulated engine is exactly one continuous answer. Pure.

A text passes if each token is the one that follows from the job and from the tokens before it. The
epoch may change at any token, as it does when another worker continues the job. `tokens.py` defines
epochs and states.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

from shared.protocol.ids import AdapterVersion
from worker.engine_simulated.tokens import (
    TEXT_CHARS,
    State,
    epoch_of,
    first_state,
    next_step,
    token_text,
)

MAX_GAP = 1000
"""Largest number of missing tokens in a row that is reported as a gap and not as a splice."""
GAP_ENDS = 2
"""Number of tokens that must fit after a gap, because a single one could fit by chance."""
_TOKEN = re.compile(rf"[0-9a-f]{{{TEXT_CHARS}}}")


class Fault(StrEnum):
    """Kinds of violations."""

    GAP = "gap"
    """Tokens are missing."""
    REPETITION = "repetition"
    """A token occurs a second time."""
    SPLICE = "splice"
    """The token belongs to another history: another claim's, another job's or another choice's."""
    MALFORMED = "malformed"
    """Part of the text isn't the text of any token."""
    EXCESS = "excess"
    """The text has more than the expected number of tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """Where a text first goes wrong: a token that doesn't follow from the tokens before it."""

    fault: Fault
    index: int
    """Index of the token in the choice."""
    detail: str

    def __str__(self) -> str:
        """Return the violation as one line."""
        return f"{self.fault} at token {self.index}: {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Result of a check."""

    violation: Violation | None
    """The first violation; None if the text is right."""
    num_tokens: int
    """Number of tokens before the violation, or of the whole text."""
    epochs: tuple[int, ...]
    """Claim epochs of the tokens that `num_tokens` counts, in order, modulo `NUM_EPOCHS`.

    The epoch changes where another claim has resumed the answer. Equal epochs in a row are listed
    once."""


def check(
    text: str,
    *,
    version: AdapterVersion,
    prompt: Sequence[int],
    seed: int,
    choice: int = 0,
    num_tokens: int | None = None,
    may_be_cut: bool = False,
) -> Verdict:
    """Check the text of one choice.

    `text` must not begin with an echoed prompt. `version` is the job's version, as
    `GET /v1/jobs/{id}` reports it. `prompt` has token ids; see `prompt_ids` and `chat_text`.
    `seed` is the request's seed, and `choice` is the choice's index among the choices of the
    prompt. If `num_tokens` is given, the text must have exactly this number of tokens. With
    `may_be_cut`, the last token's text may be incomplete, because a stop string has cut it.
    """
    pieces = [text[i : i + TEXT_CHARS] for i in range(0, len(text), TEXT_CHARS)]
    is_cut = may_be_cut and bool(pieces) and len(pieces[-1]) < TEXT_CHARS
    tokens = pieces[:-1] if is_cut else pieces
    state, violation = first_state(version, prompt, seed=seed, choice=choice), None
    num_right = 0
    for token in tokens:
        following = _follow(state, token)
        if following is None or num_right == num_tokens:
            violation = _describe(tokens, num_right, state, num_tokens)
            break
        state, num_right = following, num_right + 1
    else:
        if num_tokens is not None and num_right < num_tokens:
            detail = f"the text ends after {num_right} of {num_tokens} tokens"
            violation = Violation(fault=Fault.GAP, index=num_right, detail=detail)
    epochs = tuple(epoch for epoch, _ in groupby(map(epoch_of, tokens[:num_right])))
    return Verdict(violation=violation, num_tokens=num_right, epochs=epochs)


def _follow(state: State, token: str) -> State | None:
    """Return the state after `token`, or None if the token doesn't follow `state`."""
    if not _TOKEN.fullmatch(token):
        return None
    step = next_step(state, epoch_of(token))
    return step.state if token_text(step.token_id) == token else None


def _describe(tokens: Sequence[str], index: int, state: State, num_tokens: int | None) -> Violation:
    """Describe how the token at `index` violates the rules. `state` is the state before it."""
    token = tokens[index]
    fault, detail = Fault.SPLICE, f"{token} belongs to another history"
    if index == num_tokens:
        fault, detail = Fault.EXCESS, f"{len(tokens)} tokens instead of {num_tokens}"
    elif not _TOKEN.fullmatch(token):
        fault, detail = Fault.MALFORMED, f"{token!r} isn't a token"
    elif token in tokens[:index]:
        fault, detail = Fault.REPETITION, f"{token} was token {tokens.index(token)} already"
    elif num_missing := _num_missing(state, tokens[index : index + GAP_ENDS]):
        fault, detail = Fault.GAP, f"{num_missing} tokens are missing before {token}"
    return Violation(fault=fault, index=index, detail=detail)


def _num_missing(state: State, tokens: Sequence[str]) -> int:
    """Return how many tokens are missing between `state` and `tokens`, or 0 if there is no gap.

    All missing tokens are assumed to have the epoch of the first of `tokens`.
    """
    epoch = epoch_of(tokens[0])
    for num_missing in range(MAX_GAP + 1):
        if _follow_each(state, tokens):
            return num_missing
        state = next_step(state, epoch).state
    return 0


def _follow_each(state: State, tokens: Sequence[str]) -> bool:
    """Return whether `tokens` follow `state` one after another."""
    following: State | None = state
    for token in tokens:
        following = None if following is None else _follow(following, token)
    return following is not None
