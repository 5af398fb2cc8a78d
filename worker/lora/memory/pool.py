"""Device memory for the weights of resident adapters, paged by rank."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shared.protocol.ids import AdapterVersion
from worker.kernels.interface import LoRASite, LoRASites
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.adapter import LoRAAdapter
from worker.lora.memory.arena import Arena
from worker.lora.memory.layout import AdapterImage, Part, PoolGroup, PoolLayout, Site, side_blocks
from worker.lora.memory.pages import PAGE_ROWS, UNIT_BYTES, Run
from worker.lora.side.resident import SideStore
from worker.lora.side.weights import SideWeights, unpacked

PageNumbers = NDArray[np.int32]
"""`[layers, pages]`: the unit that each page of an adapter begins at, by layer of a group."""


@dataclass(frozen=True, slots=True, eq=False)
class SiblingSites:
    """Where linears that read the same input have their weights."""

    storage: LoRASites
    groups: frozenset[int]


@dataclass(frozen=True, slots=True, eq=False)
class Reserved:
    """Memory for an adapter that isn't resident yet."""

    version: AdapterVersion
    parts: tuple[Part, ...]
    side: SideWeights
    """Without memory: its shapes alone."""
    runs: list[list[Run]]
    """Of each part, and then of the side weights if there are any."""

    @property
    def all_runs(self) -> list[Run]:
        """In the order of the adapter's image."""
        return [run for of_part in self.runs for run in of_part]


class LoRAPool:
    """The resident adapters' weights, within a budget of bytes.

    All memory is taken at once and nothing in it moves, so that an adapter is written on any
    thread while others are computed: `reserve`, then `write`, then `activate` it. All but `write`
    belong to the thread that computes.
    """

    def __init__(
        self, base: BaseModules, *, max_bytes: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Allocate it.

        Raises:
            SettingsError: the device hasn't so much memory.
        """
        self.layout = PoolLayout(base, dtype)
        self.derived: dict[object, Any] = {}
        """What others computed from pages of resident adapters; emptied when some are given up."""
        self.device = device
        self._arena = Arena(max_bytes, dtype=dtype, device=device, setting="--adapter-memory-mb")
        self._pages: dict[AdapterVersion, dict[int, PageNumbers]] = {}
        self._runs: dict[AdapterVersion, list[Run]] = {}
        """Of the resident adapters, and of those that are written."""
        self._stream = _side_stream(device)
        self.side = SideStore(device)
        """What resident adapters have besides pages, in the same memory."""

    @property
    def groups(self) -> tuple[PoolGroup, ...]:
        """The groups of linears that adapters may target."""
        return self.layout.groups

    @property
    def sites(self) -> dict[str, Site]:
        """Where each linear of the base has its weights, by module name."""
        return self.layout.sites

    @property
    def num_bytes(self) -> int:
        """Bytes of the resident adapters, and of those that are written."""
        return self._arena.num_bytes_used

    @property
    def max_bytes(self) -> int:
        """The budget, in whole units."""
        return self._arena.num_bytes

    def bytes_of(self, version: AdapterVersion) -> int:
        """Bytes of an adapter that is resident, or written."""
        return sum(run.units for run in self._runs[version]) * UNIT_BYTES

    def pages(self, version: AdapterVersion, group: int) -> PageNumbers:
        """A resident adapter's pages in a group, in the order of its rows; it may have none."""
        pages = self._pages[version].get(group)
        return np.empty((self.groups[group].num_layers, 0), np.int32) if pages is None else pages

    def sibling_sites(self, names: Sequence[str], offsets: Sequence[int]) -> SiblingSites:
        """Where the linears `names` have their weights, given where their outputs begin."""
        sites = [self.sites[name] for name in names]
        storage = [self._storage(site, offset) for site, offset in zip(sites, offsets, strict=True)]
        return SiblingSites(LoRASites(storage), frozenset(site.group for site in sites))

    def reserve(self, image: AdapterImage) -> Reserved | None:
        """Memory for an adapter that isn't resident; None if there isn't enough."""
        assert image.version not in self._runs
        blocks = [self.layout.blocks(part) for part in image.parts]
        runs = self._arena.units.allocate([*blocks, *side_blocks(image.side)])
        if runs is None:
            return None
        reserved = Reserved(image.version, image.parts, image.side, runs)
        self._runs[image.version] = reserved.all_runs
        return reserved

    def write(self, reserved: Reserved, image: AdapterImage) -> None:
        """Copy an adapter's weights to its memory. Any thread may, and waits for it to be done."""
        targets = self._arena.pieces(reserved.all_runs)
        with self._copying():
            image.copy_to(targets)
        if self._stream is not None:
            self._stream.synchronize()

    def activate(self, reserved: Reserved) -> None:
        """Make an adapter resident that is written."""
        self._pages[reserved.version] = {
            part.group: self._page_numbers(part, runs)
            for part, runs in zip(reserved.parts, reserved.runs, strict=False)
        }
        if len(reserved.runs) > len(reserved.parts):
            (memory,) = self._arena.pieces(reserved.runs[-1])
            side = unpacked(reserved.side, memory.view(torch.uint8))
            self.side.add(reserved.version, side)

    def remove(self, version: AdapterVersion) -> None:
        """Give an adapter's memory back; also that of one which was never activated."""
        if self._pages.pop(version, None) is not None:
            self.derived.clear()
            self.side.remove(version)
        self._arena.units.release(self._runs.pop(version))

    def add(self, adapter: LoRAAdapter) -> bool:
        """Make an adapter resident at once; False if there isn't enough memory."""
        image = self.layout.image(adapter)
        reserved = self.reserve(image)
        if reserved is None:
            return False
        self.write(reserved, image)
        self.activate(reserved)
        return True

    def _page_numbers(self, part: Part, runs: Sequence[Run]) -> PageNumbers:
        group = self.groups[part.group]
        starts = [np.arange(r.start, r.start + r.units, group.page_units) for r in runs]
        return np.concatenate(starts).astype(np.int32).reshape(group.num_layers, part.num_pages)

    def _storage(self, site: Site, offset: int) -> LoRASite:
        group = self.groups[site.group]
        shape, data, unit = group.shape, self._arena.data, self.layout.unit
        num_starts = max(0, self._arena.units.num_units - group.page_units + 1)

        def rows(width: int, start: int) -> torch.Tensor:
            size, stride = (num_starts, PAGE_ROWS, width), (unit, width, 1)
            return data.as_strided(size, stride, start if num_starts else 0)

        return LoRASite(
            a=rows(shape.in_features, 0),
            b=rows(shape.out_features, group.b_start),
            group=site.group,
            layer=site.layer,
            offset=offset,
        )

    def _copying(self) -> AbstractContextManager[Any]:
        if self._stream is None:
            return nullcontext()
        # Kernels that read these pages for their last owner may be on their way still.
        self._stream.wait_stream(torch.cuda.default_stream(self.device))
        return torch.cuda.stream(self._stream)


def _side_stream(device: torch.device) -> torch.cuda.Stream | None:
    """For transfers beside the kernels; None: the device has no streams."""
    if device.type != "cuda":
        return None
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
