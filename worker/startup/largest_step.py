"""Runs the largest step that an engine may schedule, to measure its memory."""

from collections.abc import Iterator

from worker.engine.model_runner import Computed, ModelRunner
from worker.engine.request import ChoiceSampling, Request, RequestId
from worker.engine.scheduler import Chunk
from worker.lora.batch import BatchCache
from worker.lora.layers import LoRAContext
from worker.lora.memory.pool import LoRAPool
from worker.model.cache_shape import CacheSize, num_blocks_of
from worker.model.kv_cache import KVCache
from worker.model.loader import LoadedModel
from worker.model.memory_policy import Batch
from worker.model.recurrent import StatePool

_SAMPLING = ChoiceSampling(seed=0, top_p=0.9, presence_penalty=0.5, logprobs=20)
"""Sampling parameters with which the sampler uses most of its tables, and so most of its memory."""


class LargestStep:
    """A step with as many tokens as allowed. It samples one token for each sequence."""

    def __init__(self, loaded: LoadedModel, batch: Batch) -> None:
        """Create the step, and a cache for its tokens."""
        self._loaded = loaded
        self.chunks = _chunks(batch, max_model_len=loaded.max_model_len)
        num_blocks = sum(len(chunk.request.block_table) for chunk in self.chunks)
        size = CacheSize(num_blocks, 1 if loaded.cache.states else 0)
        self.kv_bytes = loaded.cache.total_bytes(size)
        """Size of the step's own cache in bytes."""
        self._cache = KVCache(loaded.cache.kv, num_blocks, dtype=loaded.dtype, device=loaded.device)
        self._states = None
        if size.num_slots:
            self._states = StatePool(loaded.cache.states, size.num_slots, loaded.device)

    def run(self) -> list[Computed]:
        """Compute the step with the base model, as an engine does."""
        loaded = self._loaded
        pool = LoRAPool(loaded.base, max_bytes=0, dtype=loaded.dtype, device=loaded.device)
        context = LoRAContext(loaded.kernels, BatchCache(pool))
        runner = ModelRunner(loaded, self._cache, context, self._states)
        try:
            return runner.run(self.chunks)
        finally:
            runner.close()


def _chunks(batch: Batch, *, max_model_len: int) -> list[Chunk]:
    chunks: list[Chunk] = []
    first_block = 0
    for index, length in enumerate(_lengths(batch, max_model_len)):
        num_blocks = num_blocks_of(length)
        request = Request(
            id=RequestId(str(index)),
            prompt_ids=[0] * length,
            version=None,
            sampling=_SAMPLING,
            max_tokens=1,
            block_table=list(range(first_block, first_block + num_blocks)),
            state_slot=1,  # the results are ignored, so all sequences may share it
        )
        first_block += num_blocks
        chunks.append(Chunk(request, 0, length, samples=index < batch.max_num_seqs))
    return chunks


def _lengths(batch: Batch, max_model_len: int) -> Iterator[int]:
    """Yield the lengths of the step's sequences in tokens.

    The first sequences have one token each. Their number is one less than the allowed number of
    sequences. The remaining tokens form sequences of up to `max_model_len` tokens.
    """
    num_tokens = batch.max_num_batched_tokens
    for _ in range(min(batch.max_num_seqs, num_tokens) - 1):
        num_tokens -= 1
        yield 1
    while num_tokens > 0:
        yield min(num_tokens, max_model_len)
        num_tokens -= max_model_len
