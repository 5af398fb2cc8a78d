"""Kernel trials: calls of each kernel on random inputs, with the sizes of an 8B model."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of one model layer and of the batches that it processes."""

    hidden: int = 4096
    num_heads: int = 32
    num_kv_heads: int = 8
    head_dim: int = 128
    rank: int = 16
    batch: int = 64
    """Number of sequences in a decode step."""
    context: int = 1024
    """Context length of each sequence, in tokens."""
    prefill: int = 512
    """Number of tokens in a prefill chunk."""
    adapters: tuple[int, ...] = (1, 8, 64)
    """Numbers of distinct adapters in a batch. Each number is measured separately."""


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


def trials(sizes: Sizes, device: torch.device) -> list[Trial]:
    """Return the trials of all kernels."""
    decode, chunk = [(sizes.context, 1)] * sizes.batch, [(sizes.context, sizes.prefill)]
    return [
        StoreKV(sizes, device),
        Attention("attention, decode", sizes, decode, device),
        Attention("attention, prefill", sizes, chunk, device),
        *(
            LoRA(f"LoRA, decode, {number} adapters", sizes, sizes.batch, number, device)
            for number in sizes.adapters
        ),
        LoRA("LoRA, prefill, 1 adapters", sizes, sizes.prefill, 1, device),
    ]


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
    """Trial that stores the keys and values of a prefill chunk in the KV cache."""

    def __init__(self, sizes: Sizes, device: torch.device) -> None:
        self.name = "KV store"
        self._shape = (sizes.prefill, sizes.num_kv_heads, sizes.head_dim)
        self._device = device
        elements = sizes.prefill * sizes.num_kv_heads * sizes.head_dim
        self.num_bytes = 2 * 2 * 2 * elements  # (read, write) x (keys, values) x 2 bytes

    def inputs(self, dtype: torch.dtype) -> Any:
        """Return keys, values, the key cache, the value cache, and the slots."""
        random = _Random(self._device, dtype)
        key, value = random(*self._shape), random(*self._shape)
        num_blocks = -(-len(key) // BLOCK_SIZE)
        cache = key.new_zeros(2, num_blocks, BLOCK_SIZE, *self._shape[1:])
        slots = torch.randperm(len(key), generator=torch.Generator().manual_seed(0))
        return key, value, cache[0], cache[1], slots.to(self._device)

    def run(self, kernels: Kernels, inputs: Any) -> Tensor:
        """Store keys and values. Return both caches as one tensor of shape `[2, ...]`."""
        kernels.store_kv(*inputs)
        return torch.stack(inputs[2:4])


class Attention:
    """Trial of attention over several sequences.

    Each sequence is given as two counts: context tokens and query tokens. The query tokens are the
    last tokens of the context.
    """

    def __init__(
        self, name: str, sizes: Sizes, sequences: Sequence[tuple[int, int]], device: torch.device
    ) -> None:
        self.name = name
        self._sizes, self._sequences, self._device = sizes, sequences, device
        num_queries = sum(n for _, n in sequences)
        contexts = 2 * sum(length for length, _ in sequences) * sizes.num_kv_heads
        in_and_out = 2 * num_queries * sizes.num_heads
        self.num_bytes = 2 * (contexts + in_and_out) * sizes.head_dim

    def inputs(self, dtype: torch.dtype) -> Any:
        """Return queries, the key cache, the value cache, and the batch."""
        random, sizes = _Random(self._device, dtype), self._sizes
        num_blocks = [-(-length // BLOCK_SIZE) for length, _ in self._sequences]
        query = random(sum(n for _, n in self._sequences), sizes.num_heads, sizes.head_dim)
        shape = (sum(num_blocks), BLOCK_SIZE, sizes.num_kv_heads, sizes.head_dim)
        keys, values = random(*shape), random(*shape)
        return query, keys, values, self._batch(num_blocks)

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
        query, keys, values, batch = inputs
        params = AttentionParams(scaling=self._sizes.head_dim**-0.5)
        return kernels.paged_attention(query, (keys, values), batch, params)


class LoRA:
    """Trial that adds the LoRA terms of q, k and v. Tokens are assigned to adapters round-robin."""

    def __init__(
        self, name: str, sizes: Sizes, num_tokens: int, num_adapters: int, device: torch.device
    ) -> None:
        self.name = name
        self._num_in, self._rank, self._device = sizes.hidden, sizes.rank, device
        self._num_tokens, self._num_adapters = num_tokens, min(num_adapters, num_tokens)
        narrow = sizes.num_kv_heads * sizes.head_dim
        self._outs = (sizes.num_heads * sizes.head_dim, narrow, narrow)
        weights = self._num_adapters * sizes.rank * (3 * sizes.hidden + sum(self._outs))
        # Inputs are read; outputs are read and written.
        self.num_bytes = 2 * (weights + num_tokens * (sizes.hidden + 2 * sum(self._outs)))

    def inputs(self, dtype: torch.dtype) -> Any:
        """Return four values: outputs that `run` updates, inputs, LoRA sites, and plan."""
        random = _Random(self._device, dtype)
        num_pages = -(-self._rank // PAGE_ROWS)
        shape = (self._num_adapters * num_pages, PAGE_ROWS)
        sites, offset = [], 0
        for group, out in enumerate(self._outs):
            a, b = random(*shape, self._num_in) / self._num_in**0.5, random(*shape, out)
            sites.append(LoRASite(a, b, group, offset=offset))
            offset += out
        tokens = [range(n, self._num_tokens, self._num_adapters) for n in range(self._num_adapters)]
        starts = range(0, self._num_adapters * num_pages + 1, num_pages)
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
