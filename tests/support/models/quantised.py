"""Quantises tiny models and saves them as bitsandbytes does, without that package."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"
BLOCK, NESTED_BLOCK = 64, 256
# The 16 values of each code, as bitsandbytes writes them.
NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635]
NF4 += [-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725]
NF4 += [0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941]
NF4 += [0.7229568362236023, 1.0]
_FP4_HALF = [0.0, 0.0625 / 12, 8 / 12, 1.0, 4 / 12, 6 / 12, 2 / 12, 3 / 12]
CODES = {"nf4": NF4, "fp4": [*_FP4_HALF, *(-value for value in _FP4_HALF)]}
CONFIGS: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "nf4 twice": {"load_in_4bit": True, "bnb_4bit_use_double_quant": True},
    "int8": {"load_in_8bit": True},
}

Tensors = dict[str, torch.Tensor]


def quantise_folder(
    folder: Path, kind: str, *, dtype: torch.dtype = torch.bfloat16, storage: str = "uint8"
) -> Tensors:
    """Quantise the layers' linears of the model in `folder`. Return all weights, dequantised.

    Args:
        folder: the model's folder, which is changed.
        kind: a key of CONFIGS.
        dtype: dtype of the weights before they were quantised.
        storage: type that `bnb_4bit_quant_storage` names.
    """
    stored: Tensors = {}
    dequantised: Tensors = {}
    for name, weight in load_file(folder / WEIGHTS).items():
        if ".layers." in name and weight.dim() == 2:
            parts, dequantised[name] = _quantised(name, weight.to(dtype), kind)
            if kind != "int8":
                parts[name] = parts[name].flatten().view(getattr(torch, storage))[:, None]
            stored.update(parts)
        else:
            stored[name] = dequantised[name] = weight
    save_file(stored, folder / WEIGHTS)
    config_path = folder / "config.json"
    config = json.loads(config_path.read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", **CONFIGS[kind]}
    config_path.write_text(json.dumps(config))
    return dequantised


def _quantised(name: str, weight: torch.Tensor, kind: str) -> tuple[Tensors, torch.Tensor]:
    if kind == "int8":
        return _int8(name, weight)
    return _four_bit(name, weight, kind.split()[0], is_nested=kind.endswith("twice"))


def _int8(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    scales = weight.float().abs().amax(1)
    numbers = (weight.float() * (127 / scales[:, None])).round().to(torch.int8)
    module = name.removesuffix("weight")
    layout = torch.tensor(0, dtype=torch.uint8)
    parts = {name: numbers, f"{module}SCB": scales, f"{module}weight_format": layout}
    return parts, (numbers.float() * scales[:, None]) * (1 / 127)


def _four_bit(
    name: str, weight: torch.Tensor, code: str, *, is_nested: bool
) -> tuple[Tensors, torch.Tensor]:
    values = torch.tensor(CODES[code])
    blocks = _blocks(weight.float().flatten(), BLOCK)
    scales = blocks.abs().amax(1)
    numbers = _nearest(blocks / scales[:, None], values).flatten()[: weight.numel()]
    state: dict[str, Any] = {"quant_type": code, "blocksize": BLOCK, "shape": list(weight.shape)}
    state["dtype"] = str(weight.dtype).removeprefix("torch.")
    even = torch.cat([numbers, numbers.new_zeros(len(numbers) % 2)]).to(torch.uint8)
    packed = (even[::2] << 4 | even[1::2])[:, None].contiguous()
    parts = {name: packed, f"{name}.quant_map": values, f"{name}.absmax": scales}
    if is_nested:
        nested, scales = _nested(name, scales, state)
        parts.update(nested)
    text = json.dumps(state).encode()
    parts[f"{name}.quant_state.bitsandbytes__{code}"] = torch.tensor(list(text), dtype=torch.uint8)
    padded = _blocks(values[numbers], BLOCK) * scales[:, None]
    return parts, padded.flatten()[: weight.numel()].view(weight.shape).to(weight.dtype)


def _nested(name: str, scales: torch.Tensor, state: dict[str, Any]) -> tuple[Tensors, torch.Tensor]:
    """Quantise the scales to bytes, and return them as they are after dequantisation, too."""
    values = torch.linspace(-1, 1, 256)
    offset = float(scales.mean())
    blocks = _blocks(scales - offset, NESTED_BLOCK)
    largest = blocks.abs().amax(1)
    numbers = _nearest(blocks / largest[:, None], values).flatten()[: len(scales)]
    state |= {"nested_blocksize": NESTED_BLOCK, "nested_dtype": "float32", "nested_offset": offset}
    parts = {
        f"{name}.absmax": numbers.to(torch.uint8),
        f"{name}.nested_absmax": largest,
        f"{name}.nested_quant_map": values,
    }
    dequantised = (_blocks(values[numbers], NESTED_BLOCK) * largest[:, None]).flatten()
    return parts, dequantised[: len(scales)] + offset


def _blocks(values: torch.Tensor, size: int) -> torch.Tensor:
    count = math.ceil(len(values) / size)
    padding = values.new_zeros(count * size - len(values))
    return torch.cat([values, padding]).view(count, size)


def _nearest(scaled: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return (scaled[..., None] - values).abs().argmin(-1)
