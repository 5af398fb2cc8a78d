"""A preallocated memory area from which runs of units are allocated."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from shared.errors import SettingsError
from worker.lora.memory.pages import UNIT_BYTES, Run, Units
from worker.lora.throttle import CHUNK_ELEMENTS, pause


class Arena:
    """A fixed amount of memory. Its contents never move.

    On the CPU, the operating system provides a memory page when the page is first written.
    """

    def __init__(
        self,
        num_bytes: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
        setting: str,
        is_pinned: bool = False,
    ) -> None:
        """Allocate `num_bytes`, rounded down to whole units, for elements of `dtype` on `device`.

        With `is_pinned`, host memory is pinned, so that a GPU can copy from it.

        Raises:
            SettingsError: the device doesn't have enough memory. The message names `setting`.
        """
        self.units = Units(num_bytes // UNIT_BYTES)
        self._unit_elements = UNIT_BYTES // dtype.itemsize
        try:
            self.data = torch.empty(
                self.units.num_units * self._unit_elements,
                dtype=dtype,
                device=device,
                pin_memory=is_pinned,
            )
        except RuntimeError:  # torch.OutOfMemoryError on a GPU, plain RuntimeError on the CPU
            raise SettingsError(
                f"{setting}: {num_bytes >> 20} MiB can't be allocated on {device}; set it lower"
            ) from None

    @property
    def num_bytes(self) -> int:
        """Size of the arena in bytes."""
        return self.units.num_units * UNIT_BYTES

    @property
    def num_bytes_used(self) -> int:
        """Number of bytes that are allocated to runs."""
        return self.units.num_used * UNIT_BYTES

    def pieces(self, runs: Iterable[Run]) -> list[Tensor]:
        """Return the memory of each run as a flat tensor."""
        size = self._unit_elements
        return [self.data[start * size : (start + units) * size] for start, units in runs]


def copy_pieces(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    """Copy the concatenation of `sources` to the concatenation of `targets`.

    All tensors are flat, and both sequences have the same total size.
    """
    remaining = list(reversed(sources))
    for target in targets:
        while len(target):
            pause()
            source = remaining.pop()
            size = min(len(source), len(target), CHUNK_ELEMENTS)
            # A copy from unpinned memory must finish here, because the memory may be freed next.
            target[:size].copy_(source[:size], non_blocking=source.is_pinned())
            target = target[size:]
            if size < len(source):
                remaining.append(source[size:])


def cut_pieces(pieces: Sequence[Tensor], sizes: Iterable[int]) -> Iterator[list[Tensor]]:
    """Cut the concatenation of flat `pieces` into parts of `sizes` elements.

    Each part is a list of views.
    """
    remaining = list(reversed(pieces))
    for size in sizes:
        part: list[Tensor] = []
        while size:
            piece = remaining.pop()
            part.append(piece[:size])
            if size < len(piece):
                remaining.append(piece[size:])
            size -= len(part[-1])
        yield part


def fill_zeros(target: Tensor) -> None:
    """Set all elements of a flat tensor to zero."""
    for part in torch.split(target, CHUNK_ELEMENTS):
        pause()
        part.zero_()
