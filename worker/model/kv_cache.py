"""Device memory for attention keys and values, divided into blocks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from shared.errors import SettingsError

BLOCK_SIZE = 16
"""Number of tokens per block."""


@dataclass(frozen=True, slots=True)
class KVShape:
    """Shape of one token's keys and values in one layer."""

    num_heads: int
    key_dim: int
    value_dim: int

    def num_bytes(self, dtype: torch.dtype) -> int:
        """Return the size of one token's keys and values in bytes."""
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
        """Allocate the memory. Raises SettingsError if the device doesn't have enough."""
        self.num_blocks = num_blocks

        def block_array(num_heads: int, dim: int) -> Tensor:
            return torch.zeros(num_blocks, BLOCK_SIZE, num_heads, dim, dtype=dtype, device=device)

        try:
            self._layers = [
                (block_array(s.num_heads, s.key_dim), block_array(s.num_heads, s.value_dim))
                for s in shapes
            ]
        except RuntimeError:  # torch.OutOfMemoryError on a GPU, plain RuntimeError on the CPU
            num_bytes = num_blocks * bytes_per_block(shapes, dtype)
            raise SettingsError(
                f"--kv-cache-mb: {num_bytes >> 20} MiB can't be allocated on {device}; set it lower"
            ) from None

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Return one layer's keys and values, each `[num_blocks, BLOCK_SIZE, num_heads, dim]`."""
        return self._layers[index]


def bytes_per_block(shapes: list[KVShape], dtype: torch.dtype) -> int:
    """Return the size in bytes of one block, summed over all layers."""
    return BLOCK_SIZE * sum(shape.num_bytes(dtype) for shape in shapes)
