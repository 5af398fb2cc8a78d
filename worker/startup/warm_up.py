"""Compiles all kernels before a worker registers, so that no request waits for a compiler."""

import time
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import structlog
import torch

from shared.errors import ModelRejected, first_line
from shared.protocol.ids import AdapterVersion
from worker.kernels.interface import AttentionBatch
from worker.lora.batch import BatchCache
from worker.lora.layers import LoRAContext
from worker.lora.memory.layout import PoolLayout
from worker.lora.memory.pages import UNIT_BYTES
from worker.lora.memory.pool import LoRAPool, PageNumbers
from worker.model.attention import AttentionStep, attention_step
from worker.model.kv_cache import BLOCK_SIZE, KVCache
from worker.model.loader import LoadedModel
from worker.model.recurrent import RecurrentStep, StatePool, groups_of

if TYPE_CHECKING:
    from worker.kernels.triton.variants import SequenceShape

log = structlog.get_logger()


def warm_up(loaded: LoadedModel) -> None:
    """Run the model once for each variant of its kernels.

    Only Triton kernels have variants, as other kernels are compiled when they are loaded. The
    engine must be created afterwards, because it replaces the adapters that are used here.

    Raises:
        ModelRejected: a kernel can't be compiled for this model, or the device's memory is too
            small for the largest step.
    """
    if loaded.kernels.name != "triton":
        return
    # Importing this needs Triton, which is installed only with torch for GPUs.
    from worker.kernels.triton.variants import steps_of_all_variants

    started_s = time.perf_counter()
    try:
        runner = _Runner(loaded)
        for step in steps_of_all_variants():
            runner.run(step)
        if loaded.device.type == "cuda":
            torch.cuda.synchronize(loaded.device)
            torch.cuda.empty_cache()  # the largest step's memory is free for caches now
    except Exception as error:  # Triton and its compilers raise exceptions of any type
        raise ModelRejected(
            f"--model {loaded.name}: its kernels fail on {loaded.device} ({first_line(error)})"
        ) from error
    log.info("kernels_compiled", seconds=round(time.perf_counter() - started_s, 1))


class _ZeroPool(LoRAPool):
    """Pool in which every version has an adapter of zeros. All adapters share a single page."""

    def __init__(self, loaded: LoadedModel) -> None:
        layout = PoolLayout(loaded.base, loaded.dtype)
        page_units = max((group.page_units for group in layout.groups), default=0)
        super().__init__(
            loaded.base,
            max_bytes=page_units * UNIT_BYTES,
            dtype=loaded.dtype,
            device=loaded.device,
        )
        self._arena.data.zero_()

    def pages(self, version: AdapterVersion, group: int) -> PageNumbers:
        """Return the number of the only page, 0, for each layer of the group: `[layers, 1]`."""
        return np.zeros((self.groups[group].num_layers, 1), np.int32)


class _Runner:
    """Runs a model on a KV cache and adapters that contain only zeros, and ignores the results."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        pool = _ZeroPool(loaded)
        self._lora = LoRAContext(loaded.kernels, BatchCache(pool))
        for siblings in loaded.siblings:
            is_head = siblings.names == (loaded.base.head,)
            siblings.attach(pool, self._lora, is_head=is_head)
        self._cache = KVCache(loaded.cache.kv, 1, dtype=loaded.dtype, device=loaded.device)
        self._states = None
        if loaded.cache.states:
            self._states = StatePool(loaded.cache.states, 1, loaded.device)

    @torch.inference_mode()
    def run(self, step: Sequence["SequenceShape"]) -> None:
        """Run a step with sequences of these shapes."""
        versions = [AdapterVersion(str(sequence.adapter)) for sequence in step]
        lengths = [sequence.num_tokens for sequence in step]
        tokens = list(zip(versions, lengths, strict=True))
        # The head gets as many rows as the linears, so that its kernels have the same variants.
        recurrent = self._recurrent_step(lengths)
        group_sizes = [group.size for group in recurrent.groups] if recurrent else []
        self._lora.set_batch(tokens, lambda: tokens, group_sizes)
        batch = self._attention_batch(step)
        blanks = torch.zeros(1, sum(lengths), dtype=torch.int64, device=self._loaded.device)
        with attention_step(AttentionStep(self._loaded.kernels, self._cache, batch, recurrent)):
            self._loaded.model(input_ids=blanks, position_ids=blanks, use_cache=False)
        self._lora.set_batch([], list)

    def _recurrent_step(self, lengths: Sequence[int]) -> RecurrentStep | None:
        """Return a step in which all sequences have the same states. None without such states."""
        if self._states is None:
            return None
        slots = torch.ones(len(lengths), dtype=torch.int64, device=self._loaded.device)
        groups = groups_of(lengths, slots, slots)
        return RecurrentStep(self._states, groups, self._lora.entering_group)

    def _attention_batch(self, step: Sequence["SequenceShape"]) -> AttentionBatch:
        """Return a batch in which all block table entries refer to the cache's only block."""
        lengths = [sequence.num_tokens for sequence in step]
        contexts = [sequence.context for sequence in step]
        device = self._loaded.device
        shape = len(step), -(-max(contexts) // BLOCK_SIZE)
        return AttentionBatch(
            slots=torch.arange(sum(lengths), device=device) % BLOCK_SIZE,
            query_starts=torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device),
            context_lens=torch.tensor(contexts, dtype=torch.int32, device=device),
            block_tables=torch.zeros(shape, dtype=torch.int32, device=device),
        )
