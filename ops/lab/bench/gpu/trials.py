"""Kernel trials: calls of one kernel on random inputs of a given size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor

from worker.kernels.interface import (
    AttentionBatch,
    AttentionParams,
    Kernels,
    LoRAPages,
    LoRAPlan,
    LoRASite,
    LoRASites,
)
from worker.model.kv_cache import BLOCK_SIZE

PAGE_ROWS = 8


@dataclass(frozen=True, slots=True)
class Heads:
    """Attention heads of one layer."""

    num_heads: int
    num_kv_heads: int
    head_dim: int


class Trial(Protocol):
    """Creates random inputs and calls one kernel on them."""

    name: str
    num_bytes: int
    """Number of bytes that the call must read and write, assuming elements of 2 bytes."""

    def inputs(self, dtype: torch.dtype) -> Any:
        """Return the inputs in `dtype`. All dtypes get the same numbers, rounded to bfloat16."""
        ...

    def run(self, kernels: Kernels, inputs: Any) -> Tensor:
        """Call the kernel and return its result."""
        ...


class _Random:
    """Generator of normally distributed tensors, rounded to bfloat16.

    Every instance yields the same sequence of tensors.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self._generator = torch.Generator(device).manual_seed(0)

    def __call__(self, *shape: int) -> Tensor:
        numbers = torch.randn(*shape, generator=self._generator, device=self._device)
        return numbers.to(torch.bfloat16).to(self._dtype)


class StoreKV:
    """Trial that stores the keys and values of `num_tokens` tokens in the KV cache."""

    def __init__(self, name: str, heads: Heads, num_tokens: int, device: torch.device) -> None:
        self.name = name
        self._shape = (num_tokens, heads.num_kv_heads, heads.head_dim)
        self._device = device
        elements = num_tokens * heads.num_kv_heads * heads.head_dim
        self.num_bytes = 2 * 2 * 2 * elements  # (read, write) x (keys, values) x 2 bytes

    def inputs(self, dtype: torch.dtype) -> Any:
        """Return keys, values, both caches as one tensor of shape `[2, ...]`, and the slots."""
        random = _Random(self._device, dtype)
        key, value = random(*self._shape), random(*self._shape)
        num_blocks = -(-len(key) // BLOCK_SIZE)
        caches = key.new_zeros(2, num_blocks, BLOCK_SIZE, *self._shape[1:])
        slots = torch.randperm(len(key), generator=torch.Generator().manual_seed(0))
        return key, value, caches, slots.to(self._device)

    def run(self, kernels: Kernels, inputs: Any) -> Tensor:
        """Store keys and values, and return both caches."""
        key, value, caches, slots = inputs
        kernels.store_kv(key, value, caches[0], caches[1], slots)
        result: Tensor = caches
        return result


class Attention:
    """Trial of attention over several sequences.

    Each sequence is given as two numbers: context tokens and query tokens. The query tokens are
    the last tokens of the context.
    """

    def __init__(
        self,
        name: str,
        heads: Heads,
        sequences: Sequence[tuple[int, int]],
        device: torch.device,
        *,
        has_sinks: bool = False,
    ) -> None:
        self.name, self._has_sinks = f"{name}, sinks" if has_sinks else name, has_sinks
        self._heads, self._sequences, self._device = heads, sequences, device
        num_queries = sum(n for _, n in sequences)
        contexts = 2 * sum(length for length, _ in sequences) * heads.num_kv_heads
        in_and_out = 2 * num_queries * heads.num_heads
        self.num_bytes = 2 * (contexts + in_and_out) * heads.head_dim

    def inputs(self, dtype: torch.dtype) -> Any:
        """Return queries, the key cache, the value cache, the batch, and sinks or None."""
        random, heads = _Random(self._device, dtype), self._heads
        num_blocks = [-(-length // BLOCK_SIZE) for length, _ in self._sequences]
        query = random(sum(n for _, n in self._sequences), heads.num_heads, heads.head_dim)
        shape = (sum(num_blocks), BLOCK_SIZE, heads.num_kv_heads, heads.head_dim)
        keys, values = random(*shape), random(*shape)
        sinks = random(heads.num_heads) if self._has_sinks else None
        return query, keys, values, self._batch(num_blocks), sinks

    def _batch(self, num_blocks: Sequence[int]) -> AttentionBatch:
        free = torch.randperm(sum(num_blocks), generator=torch.Generator().manual_seed(0)).int()
        tables = torch.zeros(len(num_blocks), max(num_blocks), dtype=torch.int32)
        for table, own in zip(tables, torch.split(free, list(num_blocks)), strict=True):
            table[: len(own)] = own
        lengths = [length for length, _ in self._sequences]
        starts = [0, *accumulate(n for _, n in self._sequences)]
        return AttentionBatch(
            slots=torch.zeros(starts[-1], dtype=torch.int64, device=self._device),
            query_starts=_int32(starts, self._device),
            context_lens=_int32(lengths, self._device),
            block_tables=tables.to(self._device),
        )

    def run(self, kernels: Kernels, inputs: Any) -> Tensor:
        """Return the attention output."""
        query, keys, values, batch, sinks = inputs
        params = AttentionParams(scaling=self._heads.head_dim**-0.5, sinks=sinks)
        return kernels.paged_attention(query, (keys, values), batch, params)


class LoRA:
    """Trial that adds the LoRA terms of sibling linears, which read the same input.

    There is one adapter for each of `ranks`. Tokens are assigned to adapters round-robin.
    """

    def __init__(
        self,
        name: str,
        *,
        num_in: int,
        outs: Sequence[int],
        num_tokens: int,
        ranks: Sequence[int],
        device: torch.device,
    ) -> None:
        self.name = name
        self._num_in, self._outs, self._device = num_in, outs, device
        self._num_tokens, self._ranks = num_tokens, ranks[:num_tokens]
        weights = sum(self._ranks) * (len(outs) * num_in + sum(outs))
        # Inputs are read; outputs are read and written.
        self.num_bytes = 2 * (weights + num_tokens * (num_in + 2 * sum(outs)))

    def inputs(self, dtype: torch.dtype) -> Any:
        """Return four values: outputs that `run` updates, inputs, LoRA sites, and plan."""
        random = _Random(self._device, dtype)
        starts = [0, *accumulate(-(-rank // PAGE_ROWS) for rank in self._ranks)]
        # Dividing by a power of two rounds nothing, so all dtypes get the same numbers.
        divisor = 2.0 ** round(math.log2(self._num_in) / 2)
        sites, offset = [], 0
        for group, out in enumerate(self._outs):
            shape = (starts[-1], PAGE_ROWS)
            a, b = random(*shape, self._num_in) / divisor, random(*shape, out)
            sites.append(LoRASite(a, b, group, offset=offset))
            offset += out
        number = len(self._ranks)
        tokens = [range(first, self._num_tokens, number) for first in range(number)]
        pages = LoRAPages(
            _int32(starts, self._device), _int32(range(starts[-1]), self._device)[None]
        )
        plan = LoRAPlan(
            token_starts=_int32([0, *accumulate(map(len, tokens))], self._device),
            tokens=_int32([token for own in tokens for token in own], self._device),
            pages=[pages] * len(sites),
            page_rows=PAGE_ROWS,
        )
        y, x = random(self._num_tokens, offset), random(self._num_tokens, self._num_in)
        return y, x, LoRASites(sites), plan

    def run(self, kernels: Kernels, inputs: Any) -> Tensor:
        """Add the LoRA terms to the outputs in place and return the outputs.

        Repeated calls accumulate.
        """
        kernels.add_lora_(*inputs)
        y: Tensor = inputs[0]
        return y


def _int32(values: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.int32, device=device)
