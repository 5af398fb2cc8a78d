"""Reads a safetensors file, after checking that it is what its header says.

The format: 8 bytes little-endian length of the header, the header as JSON, the tensors' bytes
(https://huggingface.co/docs/safetensors). The checks come first so that an error can name the
file, the tensor and what is wrong, and so that a header alone decides if the rest is read. The
bytes are read straight into a tensor: nothing here holds the interpreter for long, which the
engine needs meanwhile.
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
from worker.lora.checkpoint.json_file import json_object
from worker.lora.checkpoint.text_cache import kept
from worker.lora.scratch_buffer import Bytes, scratch
from worker.lora.throttle import AT_ONCE, pause

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

    @property
    def kind(self) -> str:
        """Dtype and shape, as torch writes them."""
        return f"{_DTYPES[self.dtype]}{list(self.shape)}"


@dataclass(frozen=True, slots=True, eq=False)
class Header:
    """What a file says that it holds."""

    text: bytes
    tensors: Mapping[str, TensorInfo]
    """By name."""
    num_bytes: int
    """Of all tensors."""

    @property
    def start(self) -> int:
        """Where the tensors' bytes start in the file."""
        return 8 + len(self.text)


class FileTensors(Mapping[str, torch.Tensor]):
    """The tensors of a file by name, floats all of them, each in its own dtype, on the CPU."""

    def __init__(self, data: Bytes, infos: Mapping[str, TensorInfo]) -> None:
        """`data` are the bytes behind the header."""
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
        """Tensors of one shape and dtype as one, in place if they are equally far apart."""
        infos = [self.infos[name] for name in names]
        first, step = self[names[0]], distance(infos)
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
        """A tensor as it lies in the file."""
        info = self.infos[name]
        return self._data[info.start : info.stop].data

    def check_finite(self) -> None:
        """Look at all bytes at once, if they are one array, before looking for who is to blame.

        Raises:
            AdapterRejected: a tensor holds NaN or Inf.
        """
        dtypes = {info.dtype for info in self.infos.values()}
        if len(dtypes) == 1:
            whole = torch.frombuffer(self._data, dtype=_DTYPES[dtypes.pop()])
            if is_finite(whole):
                return
        for name in self:
            if not is_finite(self[name]):
                raise AdapterRejected(f"tensor {name} holds NaN or Inf")


def distance(infos: Sequence[TensorInfo]) -> int | None:
    """Bytes from one tensor to the next, each behind the last one; None if they differ."""
    steps = {after.start - before.start for before, after in pairwise(infos)}
    step = steps.pop() if steps else infos[0].stop - infos[0].start
    return step if not steps and step >= 0 else None


def read_header(path: Path) -> Header:
    """What the file `path` says that it holds.

    Raises:
        AdapterRejected: the file is truncated, too long, or its header makes no sense.
    """
    with path.open("rb") as file:
        return _header(path, file)


def read_tensors(path: Path, header: Header) -> FileTensors:
    """The tensors themselves.

    The file is read whole rather than mapped: one that shrinks meanwhile would kill the process.

    Raises:
        AdapterRejected: the file can't be read, or isn't the one that `header` is from.
    """
    _check_shapes(path, header)
    data = scratch(header.num_bytes)
    with path.open("rb") as file:
        if _header(path, file).text != header.text or not _fills(data, file):
            raise AdapterRejected(f"{path} was changed while it was read")
    return FileTensors(data, header.tensors)


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether it holds neither NaN nor Inf; ten times as fast as `isfinite`."""
    for part in torch.split(tensor.reshape(-1), AT_ONCE):
        pause()
        if part.numel() and not all(math.isfinite(end) for end in torch.aminmax(part)):
            return False
    return True


def _check_shapes(path: Path, header: Header) -> None:
    for name, info in header.tensors.items():
        size = info.stop - info.start
        if math.prod(info.shape) * _DTYPES[info.dtype].itemsize != size:
            raise AdapterRejected(f"{path} can't be read: tensor {name!r} has {size} bytes")


def _fills(data: Bytes, file: BufferedReader) -> bool:
    """Whether the rest of the file is as long as `data`, which holds it then."""
    chunks = [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]
    for chunk in chunks:
        pause()
        if file.readinto(chunk.data) != len(chunk):
            return False
    return True


def _header(path: Path, file: BinaryIO) -> Header:
    """The header, behind which `file` stands then."""
    size = path.stat().st_size
    text = _header_text(path, file, size)
    try:
        header = _parsed(text)
    except AdapterRejected as error:
        raise AdapterRejected(f"{path}: {error}") from None
    expected = header.start + header.num_bytes
    if size != expected:
        what = "truncated" if size < expected else "too long"
        raise AdapterRejected(f"{path} is {what}: it has {size} bytes, its header says {expected}")
    return header


def _header_text(path: Path, file: BinaryIO, size: int) -> bytes:
    if size < 8:
        raise AdapterRejected(f"{path} is truncated: it has {size} bytes, not even a header")
    (length,) = struct.unpack("<Q", file.read(8))
    if length > MAX_HEADER_BYTES:
        raise AdapterRejected(f"{path}: its header has {length} bytes, over {MAX_HEADER_BYTES}")
    if 8 + length > size:
        raise AdapterRejected(f"{path} is truncated within its header of {length} bytes")
    return file.read(length)


@kept
def _parsed(text: bytes) -> Header:
    entries = json_object(text, "its header")
    infos = {name: _info(name, e) for name, e in entries.items() if name != "__metadata__"}
    return Header(text, infos, _checked_end(infos))


def _checked_end(infos: Mapping[str, TensorInfo]) -> int:
    """Where the last tensor ends; they lie one behind the other."""
    end = 0
    for name, info in sorted(infos.items(), key=lambda item: (item[1].start, item[1].stop)):
        if info.start != end:
            raise AdapterRejected(
                f"can't be read: tensor {name!r} starts at {info.start}, not at {end}"
            )
        end = info.stop
    return end


def _info(name: str, entry: Any) -> TensorInfo:
    try:
        dtype, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        sizes = (*shape, start, stop, stop - start)
        is_sane = isinstance(dtype, str) and all(type(n) is int and n >= 0 for n in sizes)
    except (KeyError, TypeError, ValueError):
        is_sane = False
    if not is_sane:
        raise AdapterRejected(f"its header makes no sense at tensor {name!r}")
    return TensorInfo(dtype, shape, start, stop)
