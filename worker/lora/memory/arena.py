"""One piece of memory, given out in units."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from shared.errors import SettingsError
from worker.lora.memory.pages import UNIT_BYTES, Run, Units
from worker.lora.throttle import AT_ONCE, pause


class Arena:
    """Memory of a fixed size. Nothing in it ever moves; on a CPU it is taken when first written."""

    def __init__(
        self,
        num_bytes: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
        setting: str,
        is_pinned: bool = False,
    ) -> None:
        """Allocate it; `is_pinned` is for memory of the host that a GPU copies from.

        Raises:
            SettingsError: there isn't so much memory; names the `setting` that asked for it.
        """
        self.units = Units(num_bytes // UNIT_BYTES)
        self._unit = UNIT_BYTES // dtype.itemsize
        try:
            self.data = torch.empty(
                self.units.num_units * self._unit, dtype=dtype, device=device, pin_memory=is_pinned
            )
        except RuntimeError:  # torch.OutOfMemoryError is one, but what the CPU raises isn't that
            raise SettingsError(
                f"{setting}: {num_bytes >> 20} MiB can't be allocated on {device}"
            ) from None

    @property
    def num_bytes(self) -> int:
        """Bytes of all of it."""
        return self.units.num_units * UNIT_BYTES

    @property
    def num_bytes_used(self) -> int:
        """Bytes that were given out."""
        return self.units.num_used * UNIT_BYTES

    def pieces(self, runs: Iterable[Run]) -> list[Tensor]:
        """The memory of each run."""
        return [
            self.data[start * self._unit : (start + units) * self._unit] for start, units in runs
        ]


def copy_pieces(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    """Copy flat tensors to others that are cut in other places; each has as much in all."""
    left = list(reversed(sources))
    for target in targets:
        while len(target):
            pause()
            source = left.pop()
            size = min(len(source), len(target), AT_ONCE)
            # From other memory it may still be read when its owner has given it up.
            target[:size].copy_(source[:size], non_blocking=source.is_pinned())
            target = target[size:]
            if size < len(source):
                left.append(source[size:])


def cut_pieces(pieces: Sequence[Tensor], sizes: Iterable[int]) -> Iterator[list[Tensor]]:
    """What pieces give for each of `sizes` in turn, as many elements, in as few tensors."""
    left = list(reversed(pieces))
    for size in sizes:
        cut: list[Tensor] = []
        while size:
            piece = left.pop()
            cut.append(piece[:size])
            if size < len(piece):
                left.append(piece[size:])
            size -= len(cut[-1])
        yield cut


def fill_zeros(target: Tensor) -> None:
    """Clear a flat tensor."""
    for part in torch.split(target, AT_ONCE):
        pause()
        part.zero_()
