"""Reads safetensors files and checks them against their headers.

A file consists of the header's length (8 bytes, little-endian), the header as JSON, and the
tensors' bytes (https://huggingface.co/docs/safetensors). The header is checked first. Errors can
therefore name the file and the tensor, and a malformed file is refused before its tensors are read.
Tensors are read in chunks, with pauses between chunks so that the engine can use the interpreter.
"""

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import torch

from shared.errors import AdapterRejected
from worker.lora.checkpoint.json_file import cached_by_text, json_object
from worker.lora.scratch_buffer import Bytes, scratch
from worker.lora.throttle import CHUNK_ELEMENTS, pause

MAX_HEADER_BYTES = 16 << 20
CHUNK_BYTES = 1 << 20
"""Maximum number of bytes to read between two pauses."""
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
FLOATS = tuple(_DTYPES)


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
        return f"{_DTYPES[self.dtype]}{list(self.shape)}"


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


class FileTensors(Mapping[str, torch.Tensor]):
    """Maps names to a file's floating-point tensors, on the CPU, in the dtypes of the file."""

    def __init__(self, data: Bytes, infos: Mapping[str, TensorInfo]) -> None:
        """Create the mapping from `data`, the file's bytes after the header.

        `infos` holds the header entries of the tensors in `data`, by name.
        """
        self._data = data
        self.infos = infos

    def __getitem__(self, name: str) -> torch.Tensor:
        info = self.infos[name]
        dtype = _DTYPES[info.dtype]
        if info.start == info.stop:
            return torch.empty(info.shape, dtype=dtype)
        part = self._data[info.start : info.stop]
        if info.start % dtype.itemsize:
            part = part.copy()
        return torch.frombuffer(part, dtype=dtype).view(info.shape)

    def stacked(self, names: Sequence[str]) -> torch.Tensor:
        """Stack tensors of equal shape and dtype along a new first dimension.

        The result is a view if the tensors are evenly spaced in the file. Otherwise it is a copy.
        """
        infos = [self.infos[name] for name in names]
        first, step = self[names[0]], common_distance(infos)
        size = first.dtype.itemsize
        if not step or infos[0].start % size or step % size:
            return torch.stack([self[name] for name in names])
        flat = torch.frombuffer(self._data[infos[0].start : infos[-1].stop], dtype=first.dtype)
        return flat.as_strided((len(names), *first.shape), (step // size, *first.stride()))

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)

    def bytes_of(self, name: str) -> memoryview:
        """Return the bytes of a tensor as stored in the file."""
        info = self.infos[name]
        return self._data[info.start : info.stop].data

    def check_finite(self) -> None:
        """Check that all tensors are finite.

        If all tensors have the same dtype, they are first checked together, in one pass. They are
        checked one by one only if this pass finds NaN or Inf, or if their dtypes differ.

        Raises:
            AdapterRejected: a tensor holds NaN or Inf. The message names the tensor.
        """
        dtypes = {info.dtype for info in self.infos.values()}
        if len(dtypes) == 1:
            values = torch.frombuffer(self._data, dtype=_DTYPES[dtypes.pop()])
            if is_finite(values):
                return
        for name in self:
            if not is_finite(self[name]):
                raise AdapterRejected(f"tensor {name} holds NaN or Inf; train or save it again")


def common_distance(infos: Sequence[TensorInfo]) -> int | None:
    """Return the distance in bytes from the start of one tensor to the start of the next.

    Return None if the tensors aren't evenly spaced in ascending order.
    """
    steps = {after.start - before.start for before, after in pairwise(infos)}
    step = steps.pop() if steps else infos[0].stop - infos[0].start
    return step if not steps and step >= 0 else None


def read_header(path: Path) -> Header:
    """Read and parse the header of the file at `path`.

    Raises:
        AdapterRejected: the header is malformed, or the file's size doesn't match the header.
    """
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


def read_tensors(path: Path, header: Header) -> FileTensors:
    """Read the tensors of the file at `path`, whose header is `header`.

    The tensors are copied into memory, not mapped. If a mapped file were truncated, reading from
    the mapping would kill the process.

    Raises:
        AdapterRejected: the file has changed since `header` was read, or the size of a tensor in
            `header` doesn't match its shape and dtype.
    """
    _check_shapes(path, header)
    data = scratch(header.num_bytes)
    with path.open("rb") as file:
        start = struct.pack("<Q", len(header.text)) + header.text
        if file.read(len(start)) != start or not _fill(data, file) or file.read(1):
            raise AdapterRejected(f"{path} was changed while it was read; load the adapter again")
    return FileTensors(data, header.tensors)


def is_finite(tensor: torch.Tensor) -> bool:
    """Return whether `tensor` holds neither NaN nor Inf.

    This is ten times as fast as `torch.isfinite`.
    """
    for part in torch.split(tensor.reshape(-1), CHUNK_ELEMENTS):
        pause()
        if part.numel() and not all(math.isfinite(end) for end in torch.aminmax(part)):
            return False
    return True


def _check_shapes(path: Path, header: Header) -> None:
    for name, info in header.tensors.items():
        size = info.stop - info.start
        if math.prod(info.shape) * _DTYPES[info.dtype].itemsize != size:
            raise AdapterRejected(
                f"{path} can't be read: tensor {name!r} has {size} bytes, which doesn't match its "
                f"shape {list(info.shape)} and dtype {info.dtype}"
            )


def _fill(data: Bytes, file: BufferedReader) -> bool:
    """Fill `data` from `file`. Return False if the file ends before `data` is full."""
    chunks = [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]
    for chunk in chunks:
        pause()
        if file.readinto(chunk.data) != len(chunk):
            return False
    return True


def _header_text(path: Path, file: BinaryIO, size: int) -> bytes:
    if size < 8:
        raise AdapterRejected(
            f"{path} is truncated: it has {size} bytes, too few for a header; copy it again"
        )
    (length,) = struct.unpack("<Q", file.read(8))
    if length > MAX_HEADER_BYTES:
        raise AdapterRejected(f"{path}: its header has {length} bytes, over {MAX_HEADER_BYTES}")
    if 8 + length > size:
        raise AdapterRejected(
            f"{path} is truncated within its header of {length} bytes; copy it again"
        )
    return file.read(length)


@cached_by_text
def _parse_header(text: bytes) -> Header:
    entries = json_object(text, "its header")
    infos = {name: _info(name, e) for name, e in entries.items() if name != "__metadata__"}
    return Header(text, infos, _checked_end(infos))


def _checked_end(infos: Mapping[str, TensorInfo]) -> int:
    """Check that tensors neither overlap nor leave gaps. Return the end of the last tensor.

    Raises:
        AdapterRejected: a tensor doesn't start where the previous tensor ends.
    """
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
        is_valid = isinstance(dtype, str) and all(type(n) is int and n >= 0 for n in sizes)
    except (KeyError, TypeError, ValueError):
        is_valid = False
    if not is_valid:
        raise AdapterRejected(f"its header has an invalid entry for tensor {name!r}")
    return TensorInfo(dtype, shape, start, stop)
