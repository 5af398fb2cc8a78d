"""Reads a safetensors file, after checking that it is what its header says.

The format: 8 bytes little-endian length of the header, the header as JSON, the tensors' bytes
(https://huggingface.co/docs/safetensors). The checks come first so that an error can name the
file, the tensor and what is wrong, and so that a header alone decides if the rest is read.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from shared.errors import AdapterRejected

MAX_HEADER_BYTES = 16 << 20
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What the header says about one tensor."""

    dtype: str
    shape: tuple[int, ...]
    stop: int
    """Where its bytes end, counted from the end of the header."""


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors in the file `path`, by name.

    Raises:
        AdapterRejected: the file is truncated, too long, or its header makes no sense.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header, start = _header(path, file, size)
    infos = {name: _info(path, name, e) for name, e in header.items() if name != "__metadata__"}
    expected = start + max((info.stop for info in infos.values()), default=0)
    if size != expected:
        what = "truncated" if size < expected else "too long"
        raise AdapterRejected(f"{path} is {what}: it has {size} bytes, its header says {expected}")
    return infos


def read_tensors(path: Path, header: Mapping[str, TensorInfo]) -> dict[str, torch.Tensor]:
    """The tensors themselves, each in its own dtype, on the CPU.

    The file is read whole rather than mapped: one that shrinks meanwhile would kill the process.

    Raises:
        AdapterRejected: the file can't be read, or isn't the one that `header` is from.
    """
    try:
        tensors: dict[str, torch.Tensor] = load(path.read_bytes())
    except (SafetensorError, ValueError) as error:
        raise AdapterRejected(f"{path} can't be read: {error}") from error
    if {name: tuple(t.shape) for name, t in tensors.items()} != {
        name: info.shape for name, info in header.items()
    }:
        raise AdapterRejected(f"{path} was changed while it was read")
    return tensors


def _header(path: Path, file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """The parsed header and where the tensors start."""
    if size < 8:
        raise AdapterRejected(f"{path} is truncated: it has {size} bytes, not even a header")
    (length,) = struct.unpack("<Q", file.read(8))
    if length > MAX_HEADER_BYTES:
        raise AdapterRejected(f"{path}: its header has {length} bytes, over {MAX_HEADER_BYTES}")
    if 8 + length > size:
        raise AdapterRejected(f"{path} is truncated within its header of {length} bytes")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise AdapterRejected(f"{path}: its header isn't JSON: {error}") from None
    if not isinstance(header, dict):
        raise AdapterRejected(f"{path}: its header isn't a JSON object")
    return header, 8 + length


def _info(path: Path, name: str, entry: Any) -> TensorInfo:
    try:
        dtype, shape, (_, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        is_sane = isinstance(dtype, str) and all(type(n) is int and n >= 0 for n in (*shape, stop))
    except (KeyError, TypeError, ValueError):
        is_sane = False
    if not is_sane:
        raise AdapterRejected(f"{path}: its header makes no sense at tensor {name!r}")
    return TensorInfo(dtype, shape, stop)
