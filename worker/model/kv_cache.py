"""The memory behind the block tables."""

from dataclasses import dataclass

import torch
from torch import Tensor

from shared.errors import SettingsError

BLOCK_SIZE = 16
"""Tokens per block."""


@dataclass(frozen=True, slots=True)
class KVShape:
    """Shape of one layer's keys and values, for one token."""

    num_heads: int
    key_dim: int
    value_dim: int

    def num_bytes(self, dtype: torch.dtype) -> int:
        """Bytes of one token."""
        return self.num_heads * (self.key_dim + self.value_dim) * dtype.itemsize


class KVCache:
    """Keys and values of all layers, in blocks of BLOCK_SIZE tokens."""

    def __init__(
        self,
        shapes: list[KVShape],
        num_blocks: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Allocate it.

        Raises:
            SettingsError: the device hasn't so much memory.
        """
        self.num_blocks = num_blocks

        def block_array(num_heads: int, dim: int) -> Tensor:
            return torch.zeros(num_blocks, BLOCK_SIZE, num_heads, dim, dtype=dtype, device=device)

        try:
            self._layers = [
                (block_array(s.num_heads, s.key_dim), block_array(s.num_heads, s.value_dim))
                for s in shapes
            ]
        except RuntimeError:  # torch.OutOfMemoryError is one, but what the CPU raises isn't that
            num_bytes = num_blocks * bytes_per_block(shapes, dtype)
            raise SettingsError(
                f"--kv-cache-mb: {num_bytes >> 20} MiB can't be allocated on {device}"
            ) from None

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values `[num_blocks, BLOCK_SIZE, num_heads, dim]` of one layer."""
        return self._layers[index]


def bytes_per_block(shapes: list[KVShape], dtype: torch.dtype) -> int:
    """Bytes that one block takes over all layers."""
    return BLOCK_SIZE * sum(shape.num_bytes(dtype) for shape in shapes)
