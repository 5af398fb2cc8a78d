"""Allocates the blocks of the KV cache and shares equal prefixes. Policy only.

With its first block, a request also gets a slot for its recurrent states, if the model has any.
"""

import hashlib
from array import array
from collections import Counter, OrderedDict
from itertools import takewhile

from worker.engine.request import Request
from worker.engine.state_slots import StateSlots
from worker.engine.state_snapshots import StateSnapshots


class BlockManager:
    """Allocates and frees fixed-size blocks of the KV cache.

    A full block is identified by a hash of everything that its contents depend on: the request's
    cache key and all tokens up to the block's end. Several requests may share such a block; these
    requests are its owners. A full block without owners is kept until its memory is needed. Among
    such blocks, the least recently used is evicted first.
    """

    def __init__(
        self, num_blocks: int, block_size: int, num_slots: int = 0, num_snapshots: int = 0
    ) -> None:
        """Create free blocks and, for a model with recurrent layers, free slots and snapshots."""
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.slots = StateSlots(num_slots)
        self.snapshots = StateSnapshots(num_slots + 1, num_snapshots)
        # Last in, first out, so that few requests use a small part of the cache's memory.
        self._empty = list(range(num_blocks - 1, -1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()
        """Hashed blocks without an owner, least recently used first."""
        self._owners: Counter[int] = Counter()
        """Number of owners of each block that has at least one."""
        self._block_of: dict[bytes, int] = {}
        self._hash_of: dict[int, bytes] = {}

    @property
    def num_free(self) -> int:
        """Number of blocks without an owner."""
        return len(self._empty) + len(self._idle)

    def can_allocate(self, request: Request, num_tokens: int) -> bool:
        """Return whether `allocate` would find enough memory for the same arguments."""
        has_blocks = self._missing(request, num_tokens) <= self.num_free
        return has_blocks and self.slots.has_one_for(request)

    def allocate(self, request: Request, num_tokens: int) -> None:
        """Extend the request's block table to cover `num_tokens` tokens."""
        self.slots.give(request)
        for _ in range(self._missing(request, num_tokens)):
            block = self._empty.pop() if self._empty else self._evict()
            self._owners[block] = 1
            request.block_table.append(block)

    def reuse(self, request: Request) -> int:
        """Share existing blocks that hold the request's next tokens. Return the number of tokens.

        Updates the request's block table and its counts of computed and cached tokens. The last
        token is always computed, because its logits determine the next token. If the model has
        recurrent states, blocks are shared only up to a snapshot.
        """
        if self.slots.num_slots:
            return self._reuse_states(request)
        num_before = request.num_computed_tokens
        while (block := self._next_shared(request)) is not None:
            index = request.num_computed_tokens // self.block_size
            self._idle.pop(block, None)
            self._owners[block] += 1
            if index < len(request.block_table):
                self._release(request.block_table[index])
                request.block_table[index] = block
            else:
                request.block_table.append(block)
            request.num_computed_tokens += self.block_size
        num_reused = request.num_computed_tokens - num_before
        request.num_cached_tokens += num_reused
        return num_reused

    def _reuse_states(self, request: Request) -> int:
        """Like `reuse`, for a model with recurrent states."""
        if request.num_computed_tokens or request.cache_key is None:
            return 0
        num_blocks = (request.num_tokens - 1) // self.block_size
        shared = list(
            takewhile(lambda index: self._hash(request, index) in self._block_of, range(num_blocks))
        )
        # The states where a prefix ends that several requests have are worth a snapshot.
        request.snapshot_at = len(shared) * self.block_size
        for index in reversed(shared):
            slot = self.snapshots.find(self._hash(request, index))
            if slot is not None:
                for block in (self._block_of[self._hash(request, i)] for i in shared[: index + 1]):
                    self._idle.pop(block, None)
                    self._owners[block] += 1
                    request.block_table.append(block)
                request.num_computed_tokens = (index + 1) * self.block_size
                request.num_cached_tokens += request.num_computed_tokens
                request.state_source = slot
                return request.num_computed_tokens
        return 0

    def snapshot(self, request: Request) -> int | None:
        """Return the slot to which the request's states must be copied now, or None.

        Call this when a step has computed tokens of the request.
        """
        index, offset = divmod(request.num_computed_tokens, self.block_size)
        if not self.slots.num_slots or request.cache_key is None or offset or not index:
            return None
        block_hash = self._hash(request, index - 1)
        slot = self.snapshots.reserve(block_hash)
        if request.num_computed_tokens > len(request.prompt_ids):
            if request.last_snapshot is not None:
                self.snapshots.demote(request.last_snapshot)
            request.last_snapshot = block_hash
        return slot

    def publish(self, request: Request, start: int) -> None:
        """Let other requests share full blocks of `request`, from the block of token `start` on."""
        if request.cache_key is None:
            return
        first, end = start // self.block_size, request.num_computed_tokens // self.block_size
        for index in range(first, end):
            block, hash_ = request.block_table[index], self._hash(request, index)
            if hash_ not in self._block_of and block not in self._hash_of:
                self._block_of[hash_] = block
                self._hash_of[block] = hash_

    def free(self, request: Request) -> None:
        """Release the request's blocks and slot. Reset its counts of computed and cached tokens."""
        self.slots.take_back(request)
        for block in reversed(request.block_table):
            self._release(block)
        request.block_table.clear()
        request.num_computed_tokens = request.num_cached_tokens = request.state_source = 0

    def _missing(self, request: Request, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size) - len(request.block_table)

    def _next_shared(self, request: Request) -> int | None:
        """Return the shared block that holds the next uncomputed tokens, or None if there is none.

        The result is also None if the block would contain the request's last token.
        """
        index, offset = divmod(request.num_computed_tokens, self.block_size)
        is_last = (index + 1) * self.block_size >= request.num_tokens
        if request.cache_key is None or offset or is_last:
            return None
        return self._block_of.get(self._hash(request, index))

    def _release(self, block: int) -> None:
        self._owners[block] -= 1
        if self._owners[block] == 0:
            del self._owners[block]
            if block in self._hash_of:
                self._idle[block] = None
            else:
                self._empty.append(block)

    def _evict(self) -> int:
        """Remove the least recently used idle block from the index and return it."""
        block, _ = self._idle.popitem(last=False)
        del self._block_of[self._hash_of.pop(block)]
        return block

    def _hash(self, request: Request, index: int) -> bytes:
        """Return SHA-256 of the previous block's hash (or the cache key) and the block's tokens."""
        assert request.cache_key is not None
        hashes = request.block_hashes
        while len(hashes) <= index:
            start = len(hashes) * self.block_size
            tokens = array("q", request.token_ids(start, start + self.block_size)).tobytes()
            parent = hashes[-1] if hashes else request.cache_key
            hashes.append(hashlib.sha256(parent + tokens).digest())
        return hashes[index]
