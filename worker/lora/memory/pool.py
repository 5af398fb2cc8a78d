"""Device memory for the weights of resident adapters, in pages of PAGE_ROWS rows.

Units, runs and pages are defined in `pages.py`, groups and sites in `layout.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from shared.protocol.ids import AdapterVersion
from worker.kernels.interface import LoRASite, LoRASites
from worker.lora.base.experts import MixtureWeight
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.adapter import LoRAAdapter
from worker.lora.memory.arena import Arena
from worker.lora.memory.fence import Fence, fences_of
from worker.lora.memory.layout import (
    AdapterImage,
    GroupPages,
    PoolGroup,
    PoolLayout,
    Site,
    side_blocks,
)
from worker.lora.memory.pages import PAGE_ROWS, UNIT_BYTES, Run
from worker.lora.side.resident import SideStore
from worker.lora.side.weights import SideWeights, unpacked

PageNumbers = NDArray[np.int32]
"""`[layers, pages]`: the first unit of each page that an adapter has in one group."""


@dataclass(frozen=True, slots=True, eq=False)
class SiblingSites:
    """Locations of the LoRA weights of sibling linears: linears with the same input."""

    storage: LoRASites
    groups: frozenset[int]


@dataclass(frozen=True, slots=True, eq=False)
class Reserved:
    """Memory that is allocated to an adapter before the adapter becomes resident."""

    version: AdapterVersion
    group_pages: tuple[GroupPages, ...]
    side: SideWeights
    """Shapes and dtypes of the side weights, as tensors on the `meta` device."""
    runs: list[list[Run]]
    """Runs for the pages of each group, then for the side weights, if any."""
    fence: Fence
    """Lets the adapter be copied after earlier kernels have run and before later kernels run."""

    @property
    def all_runs(self) -> list[Run]:
        """All runs: those of each group's pages, then those of the side weights."""
        return [run for runs in self.runs for run in runs]


class LoRAPool:
    """Weights of the resident adapters, within a budget of device memory.

    All memory is allocated once, and its contents never move. Any thread can therefore write
    an adapter while the model uses other adapters. To add an adapter, `reserve` its memory, `write`
    its weights, then `activate` it. All methods except `write` must be called on the thread that
    runs the model.
    """

    def __init__(
        self, base: BaseModules, *, max_bytes: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Allocate the memory. Raises SettingsError if the device doesn't have enough."""
        self.layout = PoolLayout(base, dtype)
        self.num_removals = 0
        """Number of resident adapters removed so far.

        A batch that was built before the latest removal may refer to freed pages."""
        self.device = device
        self._arena = Arena(max_bytes, dtype=dtype, device=device, setting="--adapter-memory-mb")
        self._pages: dict[AdapterVersion, dict[int, PageNumbers]] = {}
        self._runs: dict[AdapterVersion, list[Run]] = {}
        """Runs of the adapters that are resident or reserved."""
        self._new_fence = fences_of(device)
        self.side = SideStore(device)
        """Side weights of resident adapters, stored in the pool's memory."""

    @property
    def groups(self) -> tuple[PoolGroup, ...]:
        """Groups of linears that adapters may target."""
        return self.layout.groups

    @property
    def sites(self) -> dict[str, Site]:
        """Site of each linear of the base, by module name."""
        return self.layout.sites

    @property
    def num_bytes(self) -> int:
        """Memory of the adapters that are resident or reserved, in bytes."""
        return self._arena.num_bytes_used

    @property
    def max_bytes(self) -> int:
        """Size of the pool's memory in bytes, a whole number of units."""
        return self._arena.num_bytes

    def bytes_of(self, version: AdapterVersion) -> int:
        """Return the memory of an adapter that is resident or reserved, in bytes."""
        return sum(run.units for run in self._runs[version]) * UNIT_BYTES

    def pages(self, version: AdapterVersion, group: int) -> PageNumbers:
        """Return the pages of a resident adapter in a group, in the order of their matrix rows.

        The returned array has no columns if the adapter doesn't target the group.
        """
        pages = self._pages[version].get(group)
        return np.empty((self.groups[group].num_layers, 0), np.int32) if pages is None else pages

    def sibling_sites(self, names: Sequence[str], offsets: Sequence[int]) -> SiblingSites:
        """Return the sites of siblings. The output of `names[i]` begins at column `offsets[i]`."""
        sites = [self.sites[name] for name in names]
        storage = [self._storage(site, offset) for site, offset in zip(sites, offsets, strict=True)]
        return SiblingSites(LoRASites(storage), frozenset(site.group for site in sites))

    def expert_sites(self, weight: MixtureWeight) -> tuple[LoRASites, Site]:
        """Return the memory of the LoRA weights of a layer's experts, and the first expert's site.

        The plan of such sites has the pages of the experts that it needs, in group 0 and layer 0.
        """
        site = self.sites[weight.linears[0]]
        return LoRASites([replace(self._storage(site, 0), group=0, layer=0)]), site

    def reserve(self, image: AdapterImage) -> Reserved | None:
        """Allocate memory for a new adapter, or return None if there isn't enough memory."""
        assert image.version not in self._runs
        blocks = [self.layout.blocks(pages) for pages in image.group_pages]
        runs = self._arena.units.allocate([*blocks, *side_blocks(image.side)])
        if runs is None:
            return None
        reserved = Reserved(image.version, image.group_pages, image.side, runs, self._new_fence())
        self._runs[image.version] = reserved.all_runs
        return reserved

    def write(self, reserved: Reserved, image: AdapterImage) -> None:
        """Copy an adapter's weights to the reserved memory. Blocks until the copy is done.

        May be called on any thread.
        """
        targets = self._arena.pieces(reserved.all_runs)
        with reserved.fence.copying():
            image.copy_to(targets)

    def activate(self, reserved: Reserved) -> None:
        """Make an adapter resident. Its weights must already be written."""
        reserved.fence.let_kernels_wait()
        # `runs` has an item for each group, and then one for the side weights if there are any.
        self._pages[reserved.version] = {
            pages.group: self._page_numbers(pages, runs)
            for pages, runs in zip(reserved.group_pages, reserved.runs, strict=False)
        }
        if len(reserved.runs) > len(reserved.group_pages):
            (memory,) = self._arena.pieces(reserved.runs[-1])
            side = unpacked(reserved.side, memory.view(torch.uint8))
            self.side.add(reserved.version, side)

    def remove(self, version: AdapterVersion) -> None:
        """Free the memory of an adapter that is resident or reserved."""
        if self._pages.pop(version, None) is not None:
            self.num_removals += 1
            self.side.remove(version)
        self._arena.units.release(self._runs.pop(version))

    def add(self, adapter: LoRAAdapter) -> bool:
        """Reserve, write and activate an adapter. Return False if there isn't enough memory."""
        image = self.layout.image(adapter)
        reserved = self.reserve(image)
        if reserved is None:
            return False
        self.write(reserved, image)
        self.activate(reserved)
        return True

    def _page_numbers(self, pages: GroupPages, runs: Sequence[Run]) -> PageNumbers:
        group = self.groups[pages.group]
        starts = [np.arange(r.start, r.start + r.units, group.page_units) for r in runs]
        return np.concatenate(starts).astype(np.int32).reshape(group.num_layers, pages.num_pages)

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
