"""Reads a safetensors file, after checking that it is what its header says.

The format: 8 bytes little-endian length of the header, the header as JSON, the tensors' bytes
(https://huggingface.co/docs/safetensors). The checks come first so that an error can name the
file, the tensor and what is wrong, and so that a header alone decides if the rest is read. The
bytes are read straight into a tensor: nothing here holds the interpreter for long, which the
engine needs meanwhile.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import torch

from shared.errors import AdapterRejected
from worker.lora.pauses import pause
from worker.lora.scratch import Bytes, scratch

MAX_HEADER_BYTES = 16 << 20
CHUNK_BYTES = 1 << 20
"""Read between two pauses."""
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
FLOATS = tuple(_DTYPES)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What the header says about one tensor."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int
    """Its bytes, counted from the end of the header."""


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors in the file `path`, by name.

    Raises:
        AdapterRejected: the file is truncated, too long, or its header makes no sense.
    """
    with path.open("rb") as file:
        return _infos(path, file)[0]


def read_tensors(path: Path, header: Mapping[str, TensorInfo]) -> dict[str, torch.Tensor]:
    """The tensors themselves, floats all of them, each in its own dtype, on the CPU.

    The file is read whole rather than mapped: one that shrinks meanwhile would kill the process.

    Raises:
        AdapterRejected: the file can't be read, isn't the one that `header` is from, or holds NaN
            or Inf.
    """
    data = scratch(max((info.stop for info in header.values()), default=0))
    with path.open("rb") as file:
        infos, start = _infos(path, file)
        file.seek(start)
        if infos != header or not _fills(data, file):
            raise AdapterRejected(f"{path} was changed while it was read")
    tensors = {name: _tensor(path, name, info, data) for name, info in header.items()}
    _check_finite(tensors, data)
    return tensors


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether it holds neither NaN nor Inf; ten times as fast as `isfinite`."""
    pause()
    return not tensor.numel() or all(math.isfinite(end) for end in torch.aminmax(tensor))


def _fills(data: Bytes, file: BufferedReader) -> bool:
    """Whether the rest of the file is as long as `data`, which holds it then."""
    chunks = [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]
    for chunk in chunks:
        pause()
        if file.readinto(chunk.data) != len(chunk):
            return False
    return True


def _check_finite(tensors: Mapping[str, torch.Tensor], data: Bytes) -> None:
    """Look at all of `data` at once, if that is one array, before looking for who is to blame."""
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if len(dtypes) == 1 and is_finite(torch.frombuffer(data, dtype=dtypes.pop())):
        return
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            raise AdapterRejected(f"tensor {name} holds NaN or Inf")


def _infos(path: Path, file: BinaryIO) -> tuple[dict[str, TensorInfo], int]:
    """The tensors that the header names, and where their bytes start."""
    size = path.stat().st_size
    header, start = _header(path, file, size)
    infos = {name: _info(path, name, e) for name, e in header.items() if name != "__metadata__"}
    expected = start + _checked_end(path, infos)
    if size != expected:
        what = "truncated" if size < expected else "too long"
        raise AdapterRejected(f"{path} is {what}: it has {size} bytes, its header says {expected}")
    return infos, start


def _tensor(path: Path, name: str, info: TensorInfo, data: Bytes) -> torch.Tensor:
    pause()
    dtype, size = _DTYPES[info.dtype], info.stop - info.start
    if math.prod(info.shape) * dtype.itemsize != size:
        raise AdapterRejected(f"{path} can't be read: tensor {name!r} has {size} bytes")
    if size == 0:
        return torch.empty(info.shape, dtype=dtype)
    part = data[info.start : info.stop]
    if info.start % dtype.itemsize:
        part = part.copy()
    return torch.frombuffer(part, dtype=dtype).view(info.shape)


def _checked_end(path: Path, infos: Mapping[str, TensorInfo]) -> int:
    """Where the last tensor ends; they lie one behind the other."""
    end = 0
    for name, info in sorted(infos.items(), key=lambda item: (item[1].start, item[1].stop)):
        if info.start != end:
            raise AdapterRejected(
                f"{path} can't be read: tensor {name!r} starts at {info.start}, not at {end}"
            )
        end = info.stop
    return end


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
        dtype, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        sizes = (*shape, start, stop, stop - start)
        is_sane = isinstance(dtype, str) and all(type(n) is int and n >= 0 for n in sizes)
    except (KeyError, TypeError, ValueError):
        is_sane = False
    if not is_sane:
        raise AdapterRejected(f"{path}: its header makes no sense at tensor {name!r}")
    return TensorInfo(dtype, shape, start, stop)
