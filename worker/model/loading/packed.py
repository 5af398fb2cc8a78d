"""Reads weights in FP8, MXFP4, AWQ, GPTQ or compressed-tensors, and dequantises them on first use.

The values are the same bits that the publishers' code computes. All formats except MXFP4
store numbers `q` in groups that share a scale `s` and, in some formats, a zero point `z`. The
weight is `(q - z) s`, rounded to the type of the scales. FP8 in the layout of DeepSeek is an
exception: there the weight is rounded to float32.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor

from worker.model.loading.tensor_files import Piecewise, Place, TensorFiles, Weight

_FP4 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
_EXPONENT_BIAS = 127
"""Bias of scales that are stored as exponents (E8M0)."""
_AWQ_ORDER = [0, 4, 1, 5, 2, 6, 3, 7]
"""Places of eight neighbouring outputs in an int32 of AWQ. Place 0 has the lowest bits."""
_AWQ_BITS = 4
_GPTQ_BITS = (2, 4, 8)
_WHOLE_BYTES = {"F8_E4M3", "F8_E5M2", "I8"}
_GPTQ_PARTS = ("qweight", "qzeros", "scales", "g_idx")

_Rows = Callable[[slice], Tensor]


def packed_weights(
    files: TensorFiles, fields: Mapping[str, Any], place: Place
) -> dict[str, Weight]:
    """Return all weights of `files` by name. `fields` is the configuration of the quantisation.

    Raises:
        ValueError: tensors don't fit together.
    """
    finders = {"mxfp4": _mxfp4, "awq": _awq, "gptq": _gptq}
    find = finders.get(fields["quant_method"], _whole_bytes_or_words)
    found: dict[str, Weight] = {}
    parts: set[str] = set()
    for name in files.names:
        if (one := find(files, name, fields, place)) is not None:
            weight, weights_parts, values = one
            found[weight] = values
            parts.update(weights_parts)
    return files.plain(parts) | found


_Found = tuple[str, Sequence[str], Weight]
"""Name of a weight, names of the tensors in which the files store it, and the weight."""


def _mxfp4(files: TensorFiles, name: str, _: Mapping[str, Any], place: Place) -> _Found | None:
    """Return the experts' weight `[num_experts, in, out]` that gpt-oss stores as MXFP4.

    The tensor `name` has the numbers: `[num_experts, out, groups, 16]` bytes with two numbers each,
    the first in the low half. The scales are exponents, `[num_experts, out, groups]`. Return None
    if `name` isn't a tensor of such numbers.
    """
    if not name.endswith("_blocks"):
        return None
    weight = name.removesuffix("_blocks")
    scales = f"{weight}_scales"
    shape = files.shape(name)
    if files.shape(scales) != shape[:3]:
        raise ValueError(f"{scales} doesn't have the shape {shape[:3]}")
    num_experts, out_features, num_groups, num_bytes = shape

    def open_rows() -> _Rows:
        blocks, exponents = (files.read(part).to(place.device) for part in (name, scales))
        values = torch.tensor(_FP4 + [-value for value in _FP4], device=place.device)
        every_byte = torch.arange(256, device=place.device)
        pairs = torch.stack([values[every_byte & 15], values[every_byte >> 4]], dim=1)

        def rows(part: slice) -> Tensor:
            numbers = F.embedding(blocks[part].int(), pairs).flatten(-2)
            exponent = exponents[part].int() - _EXPONENT_BIAS
            return torch.ldexp(numbers, exponent[..., None]).flatten(-2).transpose(1, 2)

        return rows

    full = (num_experts, 2 * num_groups * num_bytes, out_features)
    return weight, (name, scales), Piecewise(full, open_rows, place)


def _awq(files: TensorFiles, name: str, _: Mapping[str, Any], place: Place) -> _Found | None:
    """Return a linear's weight in AWQ's layout "gemm", where eight outputs share an int32.

    The tensor `name` is `qweight`, `[in, out / 8]`. `qzeros` is `[groups, out / 8]`, and `scales`
    is `[groups, out]`. Return None for the name of any other tensor.
    """
    if not name.endswith(".qweight"):
        return None
    module = name.removesuffix("qweight")
    parts = [module + part for part in ("qweight", "qzeros", "scales")]
    num_groups, out_features = files.shape(parts[2])
    in_features = files.shape(name)[0]
    num_words = out_features * _AWQ_BITS // 32
    _check(files, name, [in_features, num_words])
    _check(files, parts[1], [num_groups, num_words])

    def open_rows() -> _Rows:
        words, zeros, scales = (files.read(part).to(place.device) for part in parts)

        def numbers(rows: slice) -> Tensor:
            return _awq_numbers(words[:, rows.start // 8 : -(-rows.stop // 8)]).t()

        columns = torch.arange(in_features, device=place.device) // (in_features // num_groups)
        return _dequantised(numbers, scales.t(), _awq_numbers(zeros).t(), columns=columns)

    shape = [out_features, in_features]
    return f"{module}weight", parts, Piecewise(shape, open_rows, place)


def _awq_numbers(words: Tensor) -> Tensor:
    numbers = _unpacked(words, _AWQ_BITS)
    return numbers.view(len(words), -1, 8)[..., _AWQ_ORDER].flatten(-2)


def _gptq(files: TensorFiles, name: str, fields: Mapping[str, Any], place: Place) -> _Found | None:
    """Return a linear's weight in GPTQ's layout, where n neighbouring inputs share an int32.

    The tensor `name` is `qweight`, `[in / n, out]`. `qzeros` is `[groups, out / n]`, and `scales`
    is `[groups, out]`. `g_idx`, `[in]`, has the group of each input, because the inputs of a group
    need not be neighbours. Return None for the name of any other tensor.
    """
    if not name.endswith(".qweight"):
        return None
    module = name.removesuffix("qweight")
    parts = [module + part for part in _GPTQ_PARTS]
    num_groups, out_features = files.shape(parts[2])
    bits = 32 * files.shape(parts[1])[1] // out_features
    if bits not in _GPTQ_BITS:
        raise ValueError(f"{parts[1]} doesn't have numbers of 2, 4 or 8 bits")
    in_features = files.shape(name)[0] * 32 // bits
    _check(files, name, [in_features * bits // 32, out_features])
    _check(files, parts[1], [num_groups, out_features * bits // 32])
    order = _order(files, parts[3], in_features, num_groups)

    def open_rows() -> _Rows:
        words, zeros, scales = (files.read(part).to(place.device) for part in parts[:3])
        zeros = _unpacked(zeros, bits)
        if gptq_format(fields) == "gptq":  # it stores zero points less one
            zeros = (zeros + 1) & ((1 << bits) - 1)
        columns = order
        if columns is None:
            columns = torch.arange(in_features) // -(-in_features // num_groups)
        return _dequantised(
            lambda rows: _unpacked(words[:, rows].t(), bits),
            scales.t(),
            zeros.t(),
            columns=columns.to(place.device),
        )

    shape = [out_features, in_features]
    return f"{module}weight", parts, Piecewise(shape, open_rows, place)


def gptq_format(fields: Mapping[str, Any]) -> str:
    """Return the name of a GPTQ checkpoint's layout. The default is `gptq`, AutoGPTQ's layout."""
    return str(fields.get("checkpoint_format") or fields.get("format") or "gptq").lower()


def _whole_bytes_or_words(
    files: TensorFiles, name: str, fields: Mapping[str, Any], place: Place
) -> _Found | None:
    """Return the weight of FP8 or compressed-tensors that the tensor `name` stores.

    Each number takes a byte, or several numbers share an int32. There is one scale for the whole
    weight, for each row, for each group of a row, or for each block. Return None if `name` isn't a
    tensor of such numbers.
    """
    weight = name.removesuffix("_packed")
    is_packed = weight != name and weight.endswith(".weight")
    inverse, usual = f"{weight}_scale_inv", f"{weight}_scale"
    scale = inverse if inverse in files else usual
    if not is_packed and files.dtype(name) not in _WHOLE_BYTES:
        return None
    if is_packed and files.dtype(name) != "I32":
        raise ValueError(f"{name} doesn't have the type int32")
    zero, order_name = f"{weight}_zero_point", f"{weight}_g_idx"
    sizes = f"{weight}_shape"
    shape = files.read(sizes).tolist() if is_packed else files.shape(name)
    grid = _Grid.of(files, scale, shape, fields.get("weight_block_size"))
    order = _order(files, order_name, shape[-1], grid.num_columns)
    bits = _bits(files, name, shape) if is_packed else 8
    is_fp8 = fields["quant_method"] != "compressed-tensors"
    if is_fp8 and files.dtype(name) == "I8":
        raise ValueError(f"{name} holds integers, not FP8")

    def open_rows() -> _Rows:
        stored = files.read(name).to(place.device)
        scales = _scales(files.read(scale).to(place.device), to_float32=is_fp8)
        zeros = files.read(zero).to(place.device) if zero in files else None
        if is_packed and zeros is not None:
            zeros = _signed(zeros.t(), bits)[:, : shape[0]].t()
        columns = grid.columns(place.device) if order is None else order.to(place.device)
        flat = stored.flatten(0, -2)
        return _dequantised(
            lambda rows: _signed(flat[rows], bits)[:, : shape[1]] if is_packed else flat[rows],
            scales.reshape(-1, grid.num_columns),
            None if zeros is None else zeros.reshape(-1, grid.num_columns),
            rows=grid.rows(place.device),
            columns=columns,
        )

    rows_shape = [math.prod(shape[:-1]), shape[-1]]
    parts = (name, scale, zero, order_name, sizes)
    return weight, parts, Piecewise(rows_shape, open_rows, place, view=shape)


@dataclass(frozen=True, slots=True)
class _Grid:
    """Maps the elements of a weight `[..., out, in]` to their scales.

    The leading dimensions are joined: the weight has the shape `[rows, in]` while it is computed.
    """

    shape: tuple[int, ...]
    num_rows: int
    """Number of rows of scales for each matrix; 0 if the whole weight has a single scale."""
    num_columns: int
    height: int
    width: int
    """Size of a block that shares a scale: `height` neighbouring rows and `width` inputs."""

    @classmethod
    def of(
        cls, files: TensorFiles, scale: str, shape: Sequence[int], block: Sequence[int] | None
    ) -> "_Grid":
        """Return the grid that maps the scales in the tensor `scale` to the weight of this `shape`.

        `block` is the (height, width) of a block of values that share one scale. None if unknown.

        Raises:
            ValueError: the number of scales doesn't fit the weight's shape.
        """
        *leading, out_features, in_features = shape
        count, stored = math.prod(leading), files.shape(scale)
        total = math.prod(stored)
        rows = columns = 1
        if total not in (1, count):
            rows, columns = stored[-2:] if len(stored) > 1 else (stored[0], 1)
        if total not in (1, count * rows * columns):
            raise ValueError(f"{scale} has the shape {stored}, which doesn't fit {list(shape)}")
        height, width = block if block and total not in (1, count) else (None, None)
        return cls(
            shape=tuple(shape),
            num_rows=rows if total > 1 else 0,
            num_columns=columns,
            height=_block_size(scale, out_features, rows, height),
            width=_block_size(scale, in_features, columns, width),
        )

    def rows(self, device: torch.device) -> Tensor:
        """Return, for each row of the weight, the row of its scales, `[rows]`."""
        *leading, out_features, _ = self.shape
        first = torch.arange(math.prod(leading), device=device) * self.num_rows
        return (first[:, None] + torch.arange(out_features, device=device) // self.height).flatten()

    def columns(self, device: torch.device) -> Tensor:
        """Return, for each input of the weight, the column of its scales, `[in]`."""
        return torch.arange(self.shape[-1], device=device) // self.width


def _order(files: TensorFiles, name: str, in_features: int, num_groups: int) -> Tensor | None:
    """Return the group of each input, `[in]`, or None if each group consists of adjacent inputs.

    If each group consists of adjacent inputs, the tensor `name` is missing, or
    compressed-tensors has stored only -1 in it.
    """
    if name not in files:
        return None
    _check(files, name, [in_features])
    groups = files.read(name).long()
    if (groups == -1).all():
        return None
    if groups.min() < 0 or groups.max() >= num_groups:
        raise ValueError(f"{name} has groups outside of 0 to {num_groups - 1}")
    return groups


def _block_size(scale: str, size: int, count: int, given: int | None) -> int:
    """Return how many adjacent values share a scale if `count` scales cover `size` values.

    The last block may be smaller only if `given` states the size of the blocks.

    Raises:
        ValueError: the number of scales doesn't fit the number of values.
    """
    length = given or max(1, size // count)
    if -(-size // length) != count or (given is None and size % count):
        raise ValueError(f"{scale} has {count} scales for {size} values, which doesn't fit")
    return length


def _dequantised(
    numbers: _Rows,
    scales: Tensor,
    zeros: Tensor | None,
    *,
    columns: Tensor,
    rows: Tensor | None = None,
) -> _Rows:
    """Return a function that computes rows of a weight, in the type of the scales.

    Args:
        numbers: function that returns rows `[n, in]` of the stored numbers.
        scales: `[groups of rows, groups of inputs]`.
        zeros: the zero points in the same shape, or None.
        columns: `[in]`, the group of each input.
        rows: `[out]`, the group of each row. By default, each row is a group of its own.
    """

    def rows_of(part: slice) -> Tensor:
        groups = part if rows is None else rows[part]
        values = numbers(part).to(scales.dtype)
        if zeros is not None:
            values = values - zeros[groups][:, columns].to(scales.dtype)
        return values * scales[groups][:, columns]

    return rows_of


def _scales(stored: Tensor, *, to_float32: bool) -> Tensor:
    if stored.dtype is torch.uint8:
        return torch.exp2(stored.float() - _EXPONENT_BIAS)
    return stored.float() if to_float32 else stored


def _unpacked(words: Tensor, bits: int) -> Tensor:
    """Unpack int32 words `[n, m]` to unsigned numbers `[n, 32 m / bits]`, low bits first."""
    shifts = torch.arange(0, 32, bits, dtype=torch.int32, device=words.device)
    return ((words[..., None] >> shifts) & ((1 << bits) - 1)).flatten(-2)


def _signed(words: Tensor, bits: int) -> Tensor:
    """Unpack int32 words to signed numbers. The words store each number plus half its range."""
    return _unpacked(words, bits) - (1 << bits - 1)


def _bits(files: TensorFiles, name: str, shape: Sequence[int]) -> int:
    """Return the number of bits of each number that the tensor `name` packs into int32 words."""
    num_words = files.shape(name)[-1]
    for bits in (4, 8):
        if -(-shape[-1] * bits // 32) == num_words:
            return bits
    raise ValueError(f"{name} doesn't have numbers of 4 or 8 bits")


def _check(files: TensorFiles, name: str, shape: Sequence[int]) -> None:
    if files.shape(name) != list(shape):
        raise ValueError(f"{name} has the shape {files.shape(name)}, not {list(shape)}")
