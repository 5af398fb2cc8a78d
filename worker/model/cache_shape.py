"""Divides memory between the two parts of a cache: blocks of keys and values, and states."""

from dataclasses import dataclass, field

import torch

from shared.errors import SettingsError
from worker.model.kv_cache import BLOCK_SIZE, KVShape, bytes_per_block
from worker.model.recurrent import StateShapes, bytes_per_state

_STATES_SHARE = 2
"""If a sequence has both parts, at most one `_STATES_SHARE`-th of the memory is for states."""
_SNAPSHOTS_SHARE = 4
"""If there isn't memory for all, one `_SNAPSHOTS_SHARE`-th of the states are snapshots."""
_MAX_SNAPSHOTS = 4
"""Maximum number of snapshots for each slot."""


@dataclass(frozen=True, slots=True)
class CacheSize:
    """Sizes of the parts of a cache."""

    num_blocks: int
    num_slots: int
    """Number of sequences whose states the cache holds at the same time. 0 if there are none."""
    num_snapshots: int = 0
    """Number of further states, which are kept for sequences with the same prefix."""

    @property
    def num_tokens(self) -> int:
        """Number of tokens whose keys and values the cache holds."""
        return self.num_blocks * BLOCK_SIZE


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What a model keeps of each sequence between steps."""

    kv: list[KVShape]
    """Shape of the keys and values of each layer. A layer without attention has none."""
    dtype: torch.dtype
    """Dtype of keys and values."""
    states: StateShapes = field(default_factory=dict)
    """Shapes of the recurrent states."""

    @property
    def bytes_per_block(self) -> int:
        """Size of a block in bytes, summed over all layers."""
        return bytes_per_block(self.kv, self.dtype)

    @property
    def bytes_per_state(self) -> int:
        """Size of all states of one sequence in bytes."""
        return bytes_per_state(self.states)

    def bytes_of(self, num_tokens: int) -> int:
        """Return the bytes of a cache that holds exactly one sequence of `num_tokens` tokens."""
        return num_blocks_of(num_tokens) * self.bytes_per_block + self._bytes_of_slots(1)

    def total_bytes(self, size: CacheSize) -> int:
        """Return the bytes that a cache of this size takes."""
        num_slots = size.num_slots + size.num_snapshots
        return size.num_blocks * self.bytes_per_block + self._bytes_of_slots(num_slots)

    def divide(self, num_bytes: int, *, max_num_seqs: int, max_model_len: int) -> CacheSize:
        """Return the sizes of a cache that takes at most `num_bytes`.

        Each of `max_num_seqs` sequences gets a slot, if there is enough memory besides a quarter
        of it for snapshots. A sequence has at most `max_model_len` tokens.

        Raises:
            SettingsError: the memory doesn't hold the states of one sequence.
        """
        if not self.states:
            return CacheSize(num_bytes // self.bytes_per_block, 0)
        share = num_bytes // _STATES_SHARE if self.bytes_per_block else num_bytes
        # One slot holds the state before the first token.
        num_states = share // self.bytes_per_state - 1
        if num_states < 1:
            needed = -(-self.bytes_of(min(max_model_len, BLOCK_SIZE)) * _STATES_SHARE >> 20)
            raise SettingsError(
                "--kv-cache-mb is too small for the model's recurrent states: set at least "
                f"{needed}"
            )
        num_slots = min(max_num_seqs, num_states - num_states // _SNAPSHOTS_SHARE)
        num_snapshots = min(num_states - num_slots, _MAX_SNAPSHOTS * num_slots)
        if not self.bytes_per_block:
            num_blocks = (num_slots + num_snapshots) * num_blocks_of(max_model_len)
            return CacheSize(num_blocks, num_slots, num_snapshots)
        left = num_bytes - self._bytes_of_slots(num_slots + num_snapshots)
        return CacheSize(left // self.bytes_per_block, num_slots, num_snapshots)

    def _bytes_of_slots(self, num_slots: int) -> int:
        return (num_slots + 1) * self.bytes_per_state


def num_blocks_of(num_tokens: int) -> int:
    """Return the number of blocks that hold `num_tokens` tokens of a sequence."""
    return -(-num_tokens // BLOCK_SIZE)
