"""Packs tiny models as FP8, compressed-tensors, AWQ, GPTQ and MXFP4 store them, without their code.

Each function of `FORMATS` rounds a weight `[out, in]`. It returns the stored tensors by the ends of
their names, and the weight that they stand for by the publisher's formula.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS = "model.safetensors"
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
FP4 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0]
FP8 = torch.float8_e4m3fn
LARGEST_FP8 = 448.0
GROUP = 32

Packed = tuple[dict[str, Tensor], Tensor]


def compressed(kind: str, bits: int, layout: str) -> dict[str, Any]:
    weights = {"type": kind, "num_bits": bits}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights, "format": layout}}
    return {"quant_method": "compressed-tensors", "format": layout, "config_groups": groups}


def expanded(scales: Tensor, shape: torch.Size, block: tuple[int, int]) -> Tensor:
    """Return a scale for each value of a weight whose blocks share scales."""
    scales = scales.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    return scales[: shape[0], : shape[1]]


def fp8(weight: Tensor, *, block: tuple[int, int], end: str, dtype: torch.dtype) -> Packed:
    height, width = (min(size, length) for size, length in zip(weight.shape, block, strict=True))
    padding = (0, -weight.shape[1] % width, 0, -weight.shape[0] % height)
    blocks = torch.nn.functional.pad(weight, padding).unflatten(1, (-1, width))
    largest = blocks.unflatten(0, (-1, height)).abs().amax((1, 3))
    block = (height, width)
    scales = (largest / LARGEST_FP8).to(dtype)
    numbers = (weight / expanded(scales, weight.shape, block).float()).to(FP8)
    values = numbers.to(dtype) * expanded(scales, weight.shape, block)
    return {"weight": numbers, f"weight_{end}": scales}, values


def fp8_tensor(weight: Tensor) -> Packed:
    scale = weight.abs().max() / LARGEST_FP8
    numbers = (weight / scale).to(FP8)
    stored = {"weight": numbers, "weight_scale": scale, "input_scale": torch.tensor(0.1)}
    return stored, numbers.float() * scale


def rounded(weight: Tensor, bits: int, group: int, *, is_signed: bool) -> tuple[Tensor, ...]:
    """Return the numbers of a weight, and the scales and zero points of groups of inputs."""
    groups = weight.unflatten(1, (-1, group))
    low, high = groups.amin(-1), groups.amax(-1)
    scales = ((high - low) / (2**bits - 1)).half()
    zeros = (-low / scales.float()).round().clamp(0, 2**bits - 1)
    numbers = (groups / scales.float()[..., None] + zeros[..., None]).round()
    numbers = numbers.clamp(0, 2**bits - 1).flatten(1)
    offset = 2 ** (bits - 1) if is_signed else 0
    return (numbers - offset).int(), scales, (zeros - offset).int()


def words(numbers: Tensor, bits: int) -> Tensor:
    """Pack neighbouring numbers `[n, m]` of a row into int32, the first in the lowest bits."""
    per_word = 32 // bits
    numbers = torch.nn.functional.pad(numbers, (0, -numbers.shape[1] % per_word)).long()
    packed = torch.zeros(len(numbers), numbers.shape[1] // per_word, dtype=torch.int64)
    for place in range(per_word):
        packed |= (numbers[:, place::per_word] & (2**bits - 1)) << (bits * place)
    return torch.where(packed >= 2**31, packed - 2**32, packed).int()


def affine(numbers: Tensor, scales: Tensor, zeros: Tensor, columns: Tensor) -> Tensor:
    return (numbers - zeros[:, columns]).to(scales.dtype) * scales[:, columns]


def neighbours(weight: Tensor) -> Tensor:
    return torch.arange(weight.shape[1]) // GROUP


def compressed_words(weight: Tensor, *, bits: int, is_ordered: bool | None = None) -> Packed:
    order = ordering(weight, is_ordered=bool(is_ordered))
    numbers, scales, zeros = rounded(weight[:, order], bits, GROUP, is_signed=True)
    scales = scales.bfloat16()
    columns = torch.empty_like(order).scatter_(0, order, neighbours(weight))
    numbers = numbers[:, order.argsort()]
    half = 2 ** (bits - 1)
    stored = {
        "weight_packed": words(numbers + half, bits),
        "weight_scale": scales,
        "weight_shape": torch.tensor(weight.shape),
        "weight_zero_point": words((zeros + half).t(), bits).t(),
    }
    if is_ordered is not None:
        stored["weight_g_idx"] = columns.int() if is_ordered else torch.full_like(columns, -1).int()
    return stored, affine(numbers, scales, zeros, columns)


def compressed_bytes(weight: Tensor) -> Packed:
    scales = (weight.abs().amax(1, keepdim=True) / 127).bfloat16()
    numbers = (weight / scales.float()).round().clamp(-128, 127).to(torch.int8)
    return {"weight": numbers, "weight_scale": scales}, numbers.to(scales.dtype) * scales


def ordering(weight: Tensor, *, is_ordered: bool) -> Tensor:
    """Return the inputs in the order in which they are grouped."""
    size = weight.shape[1]
    generator = torch.Generator().manual_seed(3)
    return torch.randperm(size, generator=generator) if is_ordered else torch.arange(size)


def gptq(weight: Tensor, *, bits: int, offset: int = 1, is_ordered: bool = False) -> Packed:
    order = ordering(weight, is_ordered=is_ordered)
    numbers, scales, zeros = rounded(weight[:, order], bits, GROUP, is_signed=False)
    columns = torch.empty_like(order).scatter_(0, order, neighbours(weight))
    numbers = numbers[:, order.argsort()]
    stored = {
        "qweight": words(numbers, bits).t(),
        "qzeros": words((zeros - offset).t(), bits),
        "scales": scales.t(),
        "g_idx": columns.int(),
    }
    return stored, affine(numbers, scales, zeros, columns)


def awq(weight: Tensor) -> Packed:
    numbers, scales, zeros = rounded(weight, 4, GROUP, is_signed=False)

    def interleaved(values: Tensor) -> Tensor:
        return words(values.t().unflatten(1, (-1, 8))[..., AWQ_ORDER].flatten(1), 4)

    stored = {"qweight": interleaved(numbers), "qzeros": interleaved(zeros), "scales": scales.t()}
    return stored, affine(numbers, scales, zeros, neighbours(weight))


Format = tuple[dict[str, Any], Callable[[Tensor], Packed]]
BLOCKS: dict[str, Any] = {"quant_method": "fp8", "weight_block_size": [32, 32]}
CUT: dict[str, Any] = {"quant_method": "fp8", "weight_block_size": [40, 24]}
FORMATS: dict[str, Format] = {
    "FP8 blocks": (BLOCKS, partial(fp8, block=(32, 32), end="scale_inv", dtype=torch.float32)),
    "FP8 cut blocks": (CUT, partial(fp8, block=(40, 24), end="scale_inv", dtype=torch.float32)),
    "FP8 tensors": ({"quant_method": "fp8", "activation_scheme": "static"}, fp8_tensor),
    "FP8 rows": (
        {"quant_method": "fbgemm_fp8"},
        partial(fp8, block=(1, 10**6), end="scale", dtype=torch.float32),
    ),
    "compressed float8": (
        compressed("float", 8, "float-quantized"),
        partial(fp8, block=(1, 10**6), end="scale", dtype=torch.bfloat16),
    ),
    "compressed int8": (compressed("int", 8, "int-quantized"), compressed_bytes),
    "compressed packed int8": (
        compressed("int", 8, "pack-quantized"),
        partial(compressed_words, bits=8, is_ordered=False),
    ),
    "compressed int4": (
        compressed("int", 4, "pack-quantized"),
        partial(compressed_words, bits=4),
    ),
    "compressed int4, ordered": (
        compressed("int", 4, "pack-quantized"),
        partial(compressed_words, bits=4, is_ordered=True),
    ),
    "AWQ": ({"quant_method": "awq", "bits": 4, "version": "gemm"}, awq),
    "GPTQ": ({"quant_method": "gptq", "bits": 4}, partial(gptq, bits=4)),
    "GPTQ, 8 bits": ({"quant_method": "gptq", "bits": 8}, partial(gptq, bits=8)),
    "GPTQ, ordered": (
        {"quant_method": "gptq", "bits": 4, "desc_act": True},
        partial(gptq, bits=4, is_ordered=True),
    ),
    "GPTQ v2": (
        {"quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq_v2"},
        partial(gptq, bits=4, offset=0),
    ),
}
"""The quantisation's configuration, and the function that packs a weight, by the format's name."""


def pack_folder(folder: Path, name: str) -> dict[str, Tensor]:
    """Pack the layers' linears of the model in `folder`. Return all weights, dequantised."""
    quantisation, pack = FORMATS[name]
    stored: dict[str, Tensor] = {}
    values: dict[str, Tensor] = {}
    for tensor, weight in load_file(folder / WEIGHTS).items():
        if ".layers." in tensor and weight.dim() == 2:
            parts, values[tensor] = pack(weight.float())
            module = tensor.removesuffix("weight")
            stored |= {module + end: part.contiguous() for end, part in parts.items()}
        else:
            stored[tensor] = values[tensor] = weight
    save_file(stored, folder / WEIGHTS)
    set_quantisation(folder, quantisation)
    return values


def set_quantisation(folder: Path, quantisation: dict[str, Any]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "quantization_config": quantisation}))


def pack_experts(folder: Path) -> dict[str, Tensor]:
    """Replace gpt-oss's experts in `folder` by random MXFP4 blocks. Return their values."""
    generator = torch.Generator().manual_seed(5)
    stored: dict[str, Tensor] = {}
    values: dict[str, Tensor] = {}
    for name, weight in load_file(folder / WEIGHTS).items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            stored[name] = weight
            continue
        num_experts, num_inputs, num_outputs = weight.shape
        shape = (num_experts, num_outputs, num_inputs // GROUP, GROUP // 2)
        blocks = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        scales = torch.randint(115, 125, shape[:3], generator=generator, dtype=torch.uint8)
        stored |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        halves = torch.stack([blocks & 15, blocks >> 4], -1).flatten(-2)
        factors = 2.0 ** (scales.float() - 127)
        values[name] = (torch.tensor(FP4)[halves.long()] * factors[..., None]).flatten(2).mT
    save_file(stored, folder / WEIGHTS)
    set_quantisation(folder, {"quant_method": "mxfp4"})
    return values
