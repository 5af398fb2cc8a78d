"""Reads safetensors files and checks them against their headers.

The header is checked first. Errors can therefore name the file and the tensor, and a malformed file
is refused before its tensors are read.
Tensors are read in chunks, with pauses between chunks so that the engine can use the interpreter.
"""

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedReader
from itertools import pairwise
from pathlib import Path

import torch

from shared.errors import AdapterRejected
from worker.lora.checkpoint.safetensors_header import TORCH_NAMES, Header, TensorInfo
from worker.lora.scratch_buffer import Bytes, scratch
from worker.lora.throttle import CHUNK_ELEMENTS, pause

CHUNK_BYTES = 1 << 20
"""Maximum number of bytes to read between two pauses."""
_DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, torch_name) for name, torch_name in TORCH_NAMES.items()
}
FLOATS = tuple(_DTYPES)


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

        Raises:
            AdapterRejected: a tensor isn't finite. The message names it.
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
    """Return the number of bytes between the starts of neighbouring tensors; None if it varies."""
    steps = {after.start - before.start for before, after in pairwise(infos)}
    step = steps.pop() if steps else infos[0].stop - infos[0].start
    return step if not steps and step >= 0 else None


def read_tensors(path: Path, header: Header) -> FileTensors:
    """Read the tensors of the file at `path`. `header` is the file's parsed header.

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
    """Return whether all values are finite. Takes a tenth of the time of `torch.isfinite`."""
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
