"""Reads and checks the headers of safetensors files, without torch.

A file consists of the header's length (8 bytes, little-endian), the header as JSON, and the
tensors' bytes (https://huggingface.co/docs/safetensors).
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from shared.errors import AdapterRejected
from shared.json_budget import JsonBudget
from worker.lora.checkpoint.json_file import cached_by_text, json_object

MAX_HEADER_BYTES = 2 << 20
MAX_TENSORS = 16_384
"""Maximum number of tensors in a file. An adapter for all linears of 400 layers has 5,600."""
MAX_NAME_CHARS = 512
"""Maximum length of a tensor's name."""
MAX_DIMENSIONS = 8
MAX_DTYPE_CHARS = 16
_MAX_NODES = 10 * MAX_TENSORS
"""Maximum number of arrays, objects and strings in a header.

A tensor's entry has five strings, an object and two lists."""
_MAX_VALUES = 16 * MAX_TENSORS
TORCH_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Names of the supported dtypes in torch, by their names in safetensors files."""
_TOO_MANY = "only adapters of single experts have so many tensors, and they aren't supported"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Header entry of one tensor."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    """Offset of the first byte, counted from the end of the header."""
    stop: int
    """Offset one past the last byte, counted from the end of the header."""

    @property
    def kind(self) -> str:
        """Dtype and shape as text, in torch's notation."""
        return f"torch.{TORCH_NAMES[self.dtype]}{list(self.shape)}"


@dataclass(frozen=True, slots=True, eq=False)
class Header:
    """Parsed header of a safetensors file."""

    text: bytes
    tensors: Mapping[str, TensorInfo]
    """Entries by tensor name."""
    num_bytes: int
    """Total size of the tensors in bytes."""

    @property
    def start(self) -> int:
        """Offset of the first tensor, counted from the start of the file."""
        return 8 + len(self.text)


def read_header(path: Path) -> Header:
    """Read the header of the file at `path`. Raises AdapterRejected if it doesn't fit the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        text = _header_text(path, file, size)
    try:
        header = _parse_header(text)
    except AdapterRejected as error:
        raise AdapterRejected(f"{path}: {error}") from None
    expected = header.start + header.num_bytes
    if size != expected:
        problem = "truncated" if size < expected else "too long"
        raise AdapterRejected(
            f"{path} is {problem}: it has {size} bytes, its header says {expected}; copy it again"
        )
    return header


def _header_text(path: Path, file: BinaryIO, size: int) -> bytes:
    if size < 8:
        raise AdapterRejected(
            f"{path} is truncated: it has {size} bytes, too few for a header; copy it again"
        )
    (length,) = struct.unpack("<Q", file.read(8))
    if length > MAX_HEADER_BYTES:
        raise AdapterRejected(
            f"{path}: its header has {length} bytes, over {MAX_HEADER_BYTES}; {_TOO_MANY}"
        )
    if 8 + length > size:
        raise AdapterRejected(
            f"{path} is truncated within its header of {length} bytes; copy it again"
        )
    return file.read(length)


@cached_by_text
def _parse_header(text: bytes) -> Header:
    entries = json_object(text, "its header", JsonBudget(_MAX_NODES, _MAX_VALUES))
    if len(entries) > MAX_TENSORS + 1:  # one is the metadata
        raise AdapterRejected(f"its header lists more than {MAX_TENSORS} tensors; {_TOO_MANY}")
    infos = {name: _info(name, e) for name, e in entries.items() if name != "__metadata__"}
    return Header(text, infos, _checked_end(infos))


def _checked_end(infos: Mapping[str, TensorInfo]) -> int:
    """Return the end of the last tensor. Refuse tensors that overlap or leave gaps."""
    end = 0
    for name, info in sorted(infos.items(), key=lambda item: (item[1].start, item[1].stop)):
        if info.start != end:
            raise AdapterRejected(
                f"can't be read: tensor {name!r} starts at byte {info.start}, expected {end}"
            )
        end = info.stop
    return end


def _info(name: str, entry: Any) -> TensorInfo:
    try:
        dtype, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        sizes = (*shape, start, stop, stop - start)
        is_valid = len(shape) <= MAX_DIMENSIONS and len(name) <= MAX_NAME_CHARS
        is_valid &= isinstance(dtype, str) and len(dtype) <= MAX_DTYPE_CHARS
        is_valid = is_valid and all(type(n) is int and n >= 0 for n in sizes)
    except (KeyError, TypeError, ValueError):
        is_valid = False
    if not is_valid:
        shown = repr(name[:MAX_NAME_CHARS])
        raise AdapterRejected(f"its header has an invalid entry for tensor {shown}")
    return TensorInfo(dtype, shape, start, stop)
