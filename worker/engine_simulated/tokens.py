"""Tokens of the simulated engine. Pure.

Each token is a hash of everything before it: version, prompt, seed, choice, all earlier tokens of
the choice, and the epoch of the claim under which the token is computed. The token's text shows the
epoch and a part of the hash, so the text alone is enough to compute what must follow it. Therefore
`checker.py` detects a missing, repeated or foreign token from the tokens after it.

The text of a token has 8 hex digits: 3 of the epoch and 5 of the hash.
"""

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NewType

from shared.protocol.ids import AdapterVersion
from shared.protocol.images import text_of

State = NewType("State", bytes)
"""Hash of a choice's history: its inputs, and all of its tokens so far."""

TEXT_CHARS = 8
"""Number of characters of a token's text."""
EPOCH_CHARS = 3
"""Number of characters at the start of a token's text that show the epoch."""
NUM_EPOCHS = 16**EPOCH_CHARS
"""Number of distinguishable epochs. Claim epochs are reduced modulo this number."""
END_ID = 256
"""The end token. It has no text."""
FIRST_ID = 1 << 32
"""Id of the output token whose text is 00000000."""
VOCAB_SIZE = 2 * FIRST_ID
_ENDS_ONCE_IN = 256
_STATE_BYTES = 16
_HASH_BITS = 4 * (TEXT_CHARS - EPOCH_CHARS)


class Step(NamedTuple):
    """One token of a choice."""

    token_id: int
    is_last: bool
    """Whether the engine outputs the end token in place of this token.

    It doesn't do so if the request ignores end tokens or asks for more tokens, or if the engine
    ends answers after a fixed number of tokens."""
    state: State
    """State after the token."""


def prompt_ids(prompt: str) -> list[int]:
    """Return the token ids of a text: its bytes in UTF-8."""
    return list(prompt.encode())


def chat_text(messages: Iterable[Mapping[str, Any]]) -> str:
    """Return the prompt of a chat. Text parts are joined by line breaks. Images are left out."""
    turns = ((turn["role"], text_of(turn.get("content") or "")) for turn in messages)
    return "".join(f"{role}: {text}\n" for role, text in turns) + "assistant: "


def first_state(
    version: AdapterVersion, prompt: Sequence[int], *, seed: int, choice: int = 0
) -> State:
    """Return the state before the first token of the choice with the index `choice`.

    Raises:
        struct.error: a token id is negative or has more than 64 bits.
    """
    digest = hashlib.blake2b(f"{version}\0{seed}\0{choice}\0".encode(), digest_size=_STATE_BYTES)
    digest.update(struct.pack(f"<{len(prompt)}Q", *prompt))
    return State(digest.digest())


def next_step(state: State, epoch: int) -> Step:
    """Return the token that a claim with this epoch computes after `state`."""
    epoch %= NUM_EPOCHS
    after = hashlib.blake2b(state + epoch.to_bytes(2, "little"), digest_size=_STATE_BYTES).digest()
    value = int.from_bytes(after[:4], "little") >> (32 - _HASH_BITS)
    token_id = FIRST_ID + (epoch << _HASH_BITS) + value
    return Step(token_id, after[4] % _ENDS_ONCE_IN == 0, State(after))


def resume_state(state: State, token_ids: Iterable[int]) -> State:
    """Return the state after tokens that earlier claims have computed from `state` on."""
    for token_id in token_ids:
        state = next_step(state, (token_id - FIRST_ID) >> _HASH_BITS).state
    return state


def token_text(token_id: int) -> str:
    """Return the text of an output token. `token_id` must be at least `FIRST_ID`."""
    return f"{token_id - FIRST_ID:0{TEXT_CHARS}x}"


def epoch_of(text: str) -> int:
    """Return the epoch in a token's text, modulo `NUM_EPOCHS`.

    Raises:
        ValueError: `text` isn't the text of a token.
    """
    return int(text[:EPOCH_CHARS], 16)
