"""Reads weights that bitsandbytes quantised, and dequantises them on first use.

The values are the same bits that bitsandbytes computes. The names of the tensors and fields are
defined by bitsandbytes.
"""

import json
import math
from types import EllipsisType
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor

from worker.model.loading.tensor_files import TensorFiles, Weight

_STATES = {f".quant_state.bitsandbytes__{kind}": kind for kind in ("nf4", "fp4")}
_PARTS_4BIT = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", *_STATES)
_ROW_FORMAT = 0
"""Value of `weight_format` for row-major weights, the only layout that bitsandbytes still reads."""
_PER_STEP = 7.874015718698502e-3
"""1 / 127, with the digits in bitsandbytes' source."""


class _FourBit:
    """A weight of 4-bit numbers: NF4 or FP4, with or without double quantisation."""

    def __init__(self, files: TensorFiles, name: str, kind: str, device: torch.device) -> None:
        self._files, self._name, self._device = files, name, device
        state_name = f"{name}.quant_state.bitsandbytes__{kind}"
        self._state: dict[str, Any] = json.loads(bytes(files.read(state_name).tolist()))
        self._shape = [int(size) for size in self._state["shape"]]
        self._block = int(self._state["blocksize"])
        self._is_nested = "nested_offset" in self._state
        self._dtype: torch.dtype = getattr(torch, self._state["dtype"])
        num_values = math.prod(self._shape)
        num_blocks = -(-num_values // self._block)
        if files.num_bytes(name) != (num_values + 1) // 2:
            raise ValueError(f"{name} doesn't have the shape {self._shape}")
        if files.shape(f"{name}.absmax") != [num_blocks]:
            raise ValueError(f"{name}.absmax doesn't have {num_blocks} values")
        if files.shape(f"{name}.quant_map") != [16]:
            raise ValueError(f"{name}.quant_map doesn't have 16 values")
        if self._is_nested and files.shape(f"{name}.nested_quant_map") != [256]:
            raise ValueError(f"{name}.nested_quant_map doesn't have 256 values")

    def __getitem__(self, _: EllipsisType) -> Tensor:
        weight = from_4bit(
            self._part("").view(torch.uint8).reshape(-1),
            self._scales(),
            self._part(".quant_map"),
            block=self._block,
            shape=self._shape,
        )
        return weight.to(self._dtype)

    def _scales(self) -> Tensor:
        scales = self._part(".absmax")
        if not self._is_nested:
            return scales
        return from_8bit_blocks(
            scales,
            self._part(".nested_absmax"),
            self._part(".nested_quant_map"),
            block=int(self._state["nested_blocksize"]),
            offset=float(self._state["nested_offset"]),
        )

    def _part(self, suffix: str) -> Tensor:
        return self._files.read(self._name + suffix).to(self._device)


class _Int8:
    """A weight of LLM.int8: one byte for each value, and one scale for each row."""

    def __init__(self, files: TensorFiles, name: str, device: torch.device) -> None:
        self._files, self._name, self._device = files, name, device
        module = name.removesuffix("weight")
        self._scales = f"{module}SCB"
        layout = f"{module}weight_format"
        if layout in files and int(files.read(layout)) != _ROW_FORMAT:
            raise ValueError(f"{layout} isn't {_ROW_FORMAT}; save the model again")
        if files.shape(name)[:1] != files.shape(self._scales) or len(files.shape(name)) != 2:
            raise ValueError(f"{self._scales} doesn't have a value for each row of {name}")

    def __getitem__(self, _: EllipsisType) -> Tensor:
        weight, scales = (self._files.read(name) for name in (self._name, self._scales))
        return from_int8(weight.to(self._device), scales.to(self._device).float())


def bitsandbytes_weights(files: TensorFiles, device: torch.device) -> dict[str, Weight]:
    """Return all weights of `files` by name. Quantised weights are dequantised on `device`.

    Raises:
        ValueError: tensors don't fit together.
    """
    found: dict[str, Weight] = {}
    parts: set[str] = set()
    for name in files.names:
        weight, suffix = _split_state(name)
        if suffix is not None:
            found[weight] = _FourBit(files, weight, _STATES[suffix], device)
            parts.update(weight + part for part in _PARTS_4BIT)
        elif name.endswith(".SCB"):
            module = name.removesuffix("SCB")
            found[f"{module}weight"] = _Int8(files, f"{module}weight", device)
            parts.update({name, f"{module}weight_format"})
    return files.plain(parts) | found


def _split_state(name: str) -> tuple[str, str | None]:
    """Split the name of a quantisation state into the weight's name and the suffix.

    For any other name, the suffix is None.
    """
    for suffix in _STATES:
        if name.endswith(suffix):
            return name.removesuffix(suffix), suffix
    return name, None


def from_4bit(
    packed: Tensor, scales: Tensor, code: Tensor, *, block: int, shape: list[int]
) -> Tensor:
    """Return the float32 weight, of the given `shape`, that `packed` stores as 4-bit numbers.

    A byte has two numbers, the first in its high half. `code` has the 16 values that the numbers
    represent. `scales` has a float32 factor for each block of `block` values.
    """
    every_byte = torch.arange(256, device=packed.device)
    pairs = torch.stack([code[every_byte >> 4], code[every_byte & 15]], dim=1)
    num_values = torch.Size(shape).numel()
    values = F.embedding(packed.int(), pairs).view(-1)[:num_values]
    return _scaled(values, scales, block).view(shape)


def from_8bit_blocks(
    numbers: Tensor, scales: Tensor, code: Tensor, *, block: int, offset: float
) -> Tensor:
    """Return the float32 scales that double quantisation has stored as bytes.

    `code` has the 256 values that bytes can represent. The values of each block of `block`
    numbers are multiplied by their scale, and then `offset` is added.
    """
    return _scaled(F.embedding(numbers.int(), code[:, None]).view(-1), scales, block) + offset


def from_int8(weight: Tensor, row_scales: Tensor) -> Tensor:
    """Return the float32 weight that LLM.int8 stores as int8 values `[out, in]`.

    `row_scales` `[out]` has the largest magnitude in each row of the weight. This magnitude is
    stored as 127.
    """
    return weight * row_scales[:, None] * _PER_STEP


def _scaled(values: Tensor, scales: Tensor, block: int) -> Tensor:
    """Multiply each block of `values` by its scale. The last block may be shorter."""
    num_full = len(values) // block
    full = values[: num_full * block].view(num_full, block)
    full *= scales[:num_full, None]
    values[num_full * block :] *= scales[num_full:]
    return values
