"""Who owns which block of the KV cache."""

from worker.engine.request import Request


class BlockManager:
    """Hands out fixed-size blocks of the KV cache and takes them back."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        # Last in, first out: few requests then touch little of the cache's memory.
        self._free = list(range(num_blocks - 1, -1, -1))

    @property
    def num_free(self) -> int:
        """Blocks that nobody owns."""
        return len(self._free)

    def can_allocate(self, request: Request, num_tokens: int) -> bool:
        """Whether `request` can own blocks for its first `num_tokens` tokens."""
        return self._missing(request, num_tokens) <= len(self._free)

    def allocate(self, request: Request, num_tokens: int) -> None:
        """Extend the request's block table to cover `num_tokens` tokens."""
        for _ in range(self._missing(request, num_tokens)):
            request.block_table.append(self._free.pop())

    def free(self, request: Request) -> None:
        """Take all blocks back; the request's computed tokens are gone."""
        self._free.extend(reversed(request.block_table))
        request.block_table.clear()
        request.num_computed_tokens = 0

    def _missing(self, request: Request, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size) - len(request.block_table)
