"""Computes weights from the tensors that bitsandbytes stores, bit for bit as bitsandbytes does."""

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor

_PER_STEP = 7.874015718698502e-3
"""1 / 127, as bitsandbytes writes it."""


def from_4bit(
    packed: Tensor, scales: Tensor, code: Tensor, *, block: int, shape: list[int]
) -> Tensor:
    """Return the float32 weight `shape` of 4-bit numbers.

    Args:
        packed: two numbers in each byte, the first in the high half.
        scales: float32 factor of each block.
        code: the 16 values that the numbers stand for.
        block: numbers per block.
        shape: shape of the weight.
    """
    every_byte = torch.arange(256, device=packed.device)
    pairs = torch.stack([code[every_byte >> 4], code[every_byte & 15]], dim=1)
    num_values = torch.Size(shape).numel()
    values = F.embedding(packed.int(), pairs).view(-1)[:num_values]
    return _scaled(values, scales, block).view(shape)


def from_8bit_blocks(
    numbers: Tensor, scales: Tensor, code: Tensor, *, block: int, offset: float
) -> Tensor:
    """Return the float32 scales that bitsandbytes' double quantisation stored as bytes."""
    return _scaled(F.embedding(numbers.int(), code[:, None]).view(-1), scales, block) + offset


def from_int8(weight: Tensor, row_scales: Tensor) -> Tensor:
    """Return the float32 weight of LLM.int8, whose rows were divided by their largest values."""
    return weight * row_scales[:, None] * _PER_STEP


def _scaled(values: Tensor, scales: Tensor, block: int) -> Tensor:
    """Multiply each block of `values` by its scale. The last block may be shorter."""
    num_full = len(values) // block
    full = values[: num_full * block].view(num_full, block)
    full *= scales[:num_full, None]
    values[num_full * block :] *= scales[num_full:]
    return values
