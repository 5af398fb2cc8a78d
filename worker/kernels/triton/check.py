"""Checks the Triton kernels against torch on a device."""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any

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
from worker.kernels.reference import ReferenceKernels
from worker.kernels.triton.kernels import TritonKernels

TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest allowed deviation from torch's result, by dtype.

It is relative to the largest absolute value in torch's result."""
_BLOCK_SIZE = 16
_SEQUENCES = ((1, 1), (300, 1), (40, 40), (90, 5))
"""(context length, number of queries at the context's end) of the tested sequences.

Together, they cover all attention code."""
_LIMIT = 70
"""Number of positions in a sliding window or in a chunk, in tests of these features."""
_PAGE_ROWS = 8
_LORA_SIZES = ((3, 64), (3, 2048), (80, 64), (80, 2048))
"""(number of tokens, number of input features) of the tested batches. They cover all LoRA code."""


class NotUsable(Exception):
    """The kernels fail on the device or differ from torch; the message gives the reason."""


def usable_kernels(device: torch.device, dtype: torch.dtype) -> TritonKernels:
    """Return the kernels after a check against torch on random inputs.

    Raises:
        NotUsable: the kernels cannot be compiled or launched on `device`, or a result deviates from
            torch's by more than TOLERANCE.
    """
    kernels = TritonKernels()
    try:
        check_kernels(kernels, device, dtype)
    except Exception as error:  # Triton and its compilers raise exceptions of any type
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise NotUsable(reason[0]) from error
    return kernels


@torch.inference_mode()
def check_kernels(kernels: Kernels, device: torch.device, dtype: torch.dtype) -> None:
    """Compare each kernel with torch. Raises NotUsable if a result deviates too much."""
    trials = {
        "attention": partial(_attention, {}),
        "attention in windows": partial(_attention, {"sliding_window": _LIMIT}),
        "attention in chunks, with sinks": partial(
            _attention, {"chunk_size": _LIMIT}, has_sinks=True
        ),
    }
    trials |= {f"LoRA, {t} x {n}": partial(_lora, t, n) for t, n in _LORA_SIZES}
    for name, trial in trials.items():
        expected = trial(ReferenceKernels(), _Random(device, dtype)).float()
        got = trial(kernels, _Random(device, dtype)).float()
        deviation = float((got - expected).abs().max() / expected.abs().max())
        if not deviation <= TOLERANCE[dtype]:
            raise NotUsable(f"{name}, in {dtype}, is off by {deviation:.2g} of its largest value")


class _Random:
    """Generator of normally distributed tensors; every instance yields the same sequence."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self._dtype = dtype
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator).to(self.device, self._dtype)


def _attention(
    limits: dict[str, int], kernels: Kernels, random: _Random, *, has_sinks: bool = False
) -> Tensor:
    batch, slots, num_blocks = _attention_batch(random.device)
    key, value = random(len(slots), 2, 64), random(len(slots), 2, 64)
    keys, values = (key.new_zeros(num_blocks, _BLOCK_SIZE, 2, 64) for _ in range(2))
    kernels.store_kv(key, value, keys, values, slots)
    query = random(len(batch.slots), 4, 64)
    sinks = random(4) if has_sinks else None
    params = AttentionParams(scaling=0.125, sinks=sinks, **limits)
    return kernels.paged_attention(query, (keys, values), batch, params)


def _attention_batch(device: torch.device) -> tuple[AttentionBatch, Tensor, int]:
    """Return three values for `_SEQUENCES`: the batch, the slots of all tokens, the block count."""
    sizes = [-(-length // _BLOCK_SIZE) for length, _ in _SEQUENCES]
    firsts = [0, *accumulate(sizes)]
    tables = torch.zeros(len(sizes), max(sizes), dtype=torch.int32)
    slots, own = [], []
    for number, (length, num_queries) in enumerate(_SEQUENCES):
        tables[number, : sizes[number]] = torch.arange(firsts[number], firsts[number + 1])
        slots.append(firsts[number] * _BLOCK_SIZE + torch.arange(length))
        own.append(slots[-1][length - num_queries :])
    batch = AttentionBatch(
        slots=torch.cat(own).to(device),
        query_starts=_int32([0, *accumulate(n for _, n in _SEQUENCES)], device),
        context_lens=_int32([length for length, _ in _SEQUENCES], device),
        block_tables=tables.to(device),
    )
    return batch, torch.cat(slots).to(device), firsts[-1]


def _lora(num_tokens: int, num_in: int, kernels: Kernels, random: _Random) -> Tensor:
    """Add LoRA terms to random outputs, and return the outputs.

    The batch uses two adapters, which have 2 and 4 pages. The last token has no adapter.
    """
    # The linear uses the second row of pages.
    numbers = _int32([[0] * 6, [3, 1, 0, 2, 5, 4]], random.device)
    pages = LoRAPages(_int32([0, 2, 6], random.device), numbers)
    plan = LoRAPlan(
        token_starts=_int32([0, 1, num_tokens - 1], random.device),
        tokens=_int32(range(num_tokens - 1), random.device),
        pages=[pages],
        page_rows=_PAGE_ROWS,
    )
    site = LoRASite(random(6, _PAGE_ROWS, num_in), random(6, _PAGE_ROWS, 48), 0, layer=1)
    y = random(num_tokens, 48)
    kernels.add_lora_(y, random(num_tokens, num_in), LoRASites([site]), plan)
    return y


def _int32(values: Sequence[Any], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.int32, device=device)
