"""Decides which recurrent states are kept for other requests. Policy only.

The blocks of a common prefix are worth nothing to a recurrent model without the state at their end.
So the state is copied when a chunk ends with a block. The copy, a snapshot, is found by the hash of
this block. When the memory is full, the least recently used snapshot is evicted.
"""

from collections import OrderedDict


class StateSnapshots:
    """Maps hashes of blocks to the slots that have the states at the blocks' ends."""

    def __init__(self, first_slot: int, num_slots: int) -> None:
        """Create `num_slots` free slots, numbered from `first_slot`."""
        self._free = list(range(first_slot + num_slots - 1, first_slot - 1, -1))
        self._slot_of: OrderedDict[bytes, int] = OrderedDict()
        """Slot of each snapshot, least recently used first."""

    def find(self, block_hash: bytes) -> int | None:
        """Return the slot with the state at the end of a block, or None. The slot counts as used.

        Its contents stay until the next call of `reserve`.
        """
        slot = self._slot_of.get(block_hash)
        if slot is not None:
            self._slot_of.move_to_end(block_hash)
        return slot

    def reserve(self, block_hash: bytes) -> int | None:
        """Return the slot to which the state at the end of a block must be copied.

        Return None if the state is there already, or if there is no memory for snapshots.
        """
        if block_hash in self._slot_of:
            self._slot_of.move_to_end(block_hash)
            return None
        if not self._free and not self._slot_of:
            return None
        slot = self._free.pop() if self._free else self._slot_of.popitem(last=False)[1]
        self._slot_of[block_hash] = slot
        return slot

    def demote(self, block_hash: bytes) -> None:
        """Evict a snapshot first, unless it is used before. Unknown hashes are ignored."""
        if block_hash in self._slot_of:
            self._slot_of.move_to_end(block_hash, last=False)
