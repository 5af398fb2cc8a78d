"""Device memory for the weights of resident adapters, paged by rank."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from shared.ids import AdapterVersion
from worker.kernels.interface import LoRASite, LoRASites
from worker.lora.adapter import LoRAAdapter
from worker.lora.modules import BaseModules, ModuleShape
from worker.lora.pages import PAGE_ROWS, Move, PageTable, pages_of_rank
from worker.lora.side_store import SideStore


class Site(NamedTuple):
    """Where a module's weights are in the pool."""

    group: int
    layer: int
    """Index within the group's storage, not the model's number of the layer."""


@dataclass(frozen=True, slots=True, eq=False)
class SiblingSites:
    """Where linears that read the same input have their weights."""

    sites: tuple[Site, ...]
    offsets: tuple[int, ...]
    """Where each one's columns begin in their common output."""
    groups: frozenset[int]


class PoolGroup:
    """Storage of one module group: linears of the same shape, at the same place in each layer.

    `a` is `[layers, rows, in]`, `b` is `[layers, rows, out]`, so that a run of rows of one layer
    is one contiguous matrix in both. Rows of nobody hold leftovers, but never NaN or Inf.
    """

    def __init__(self, shape: ModuleShape, dtype: torch.dtype, device: torch.device) -> None:
        self.shape = shape
        self.modules: list[str] = []
        self.table = PageTable()
        self.a = torch.zeros(0, 0, shape.in_features, dtype=dtype, device=device)
        self.b = torch.zeros(0, 0, shape.out_features, dtype=dtype, device=device)

    @property
    def page_bytes(self) -> int:
        """Bytes of one page over all layers."""
        width = self.shape.in_features + self.shape.out_features
        return len(self.modules) * PAGE_ROWS * width * self.a.itemsize

    def resize(self, capacity: int) -> None:
        """Reallocate to `capacity` pages; fewer than now only if no page behind is in use."""
        self.a = _resized(self.a, len(self.modules), capacity * PAGE_ROWS)
        self.b = _resized(self.b, len(self.modules), capacity * PAGE_ROWS)

    def move(self, moves: list[Move]) -> None:
        """Copy pages from each source to its target."""
        if not moves:
            return
        index = torch.tensor(moves, device=self.a.device).t()
        for storage in (self.a, self.b):
            pages = storage.view(len(self.modules), -1, PAGE_ROWS, storage.shape[2])
            pages.index_copy_(1, index[1], pages.index_select(1, index[0]))

    def write(self, pages: Iterable[int], adapter: LoRAAdapter) -> None:
        """Fill `pages` with the adapter's weights; what it doesn't have becomes zero."""
        rows = [page * PAGE_ROWS + i for page in pages for i in range(PAGE_ROWS)]
        size, dtype = (len(self.modules), len(rows)), self.a.dtype
        new_a = torch.zeros(*size, self.shape.in_features, dtype=dtype)
        new_b = torch.zeros(*size, self.shape.out_features, dtype=dtype)
        for layer, module in enumerate(self.modules):
            if (weights := adapter.modules.get(module)) is not None:
                new_a[layer, : len(weights.a)] = weights.a
                new_b[layer, : len(weights.a)] = weights.b.t()
        index = torch.tensor(rows, device=self.a.device)
        for storage, new in (self.a, new_a), (self.b, new_b):
            storage.index_copy_(1, index, new.to(storage.device))


class LoRAPool:
    """The resident adapters' weights, within a budget of bytes.

    An adapter takes pages only of the groups that it targets, as many as its largest rank there
    needs. Storage grows as adapters come; while a group is reallocated, its old and its new
    storage exist side by side, so that for a moment more than `max_bytes` may be in use.
    """

    def __init__(
        self, base: BaseModules, *, max_bytes: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.sites: dict[str, Site] = {}
        """Where each linear of the base has its weights, by module name."""
        self.groups: list[PoolGroup] = []
        self.derived: dict[object, Any] = {}
        """What others computed from the page tables; emptied whenever these change."""
        self.device = device
        self.side = SideStore(device)
        """What adapters have besides pages, within the same budget."""
        self._max_bytes = max_bytes
        self._resident: set[AdapterVersion] = set()
        self._storage: dict[SiblingSites, LoRASites] = {}
        self._build_groups(base, dtype, device)

    def _build_groups(self, base: BaseModules, dtype: torch.dtype, device: torch.device) -> None:
        index: dict[tuple[str, ModuleShape], int] = {}
        for name, shape in base.linears.items():
            key = _place_in_layer(name), shape
            if key not in index:
                index[key] = len(self.groups)
                self.groups.append(PoolGroup(shape, dtype, device))
            group = self.groups[index[key]]
            self.sites[name] = Site(index[key], len(group.modules))
            group.modules.append(name)

    @property
    def num_bytes(self) -> int:
        """Bytes of all storage, free pages included."""
        pages = sum(group.table.capacity * group.page_bytes for group in self.groups)
        return pages + self.side.num_bytes

    def sibling_sites(self, names: Sequence[str], offsets: Sequence[int]) -> SiblingSites:
        """Where the linears `names` have their weights, given where their outputs begin."""
        sites = tuple(self.sites[name] for name in names)
        return SiblingSites(sites, tuple(offsets), frozenset(site.group for site in sites))

    def storage_of(self, siblings: SiblingSites) -> LoRASites:
        """The storage of `siblings`; valid until the pool changes."""
        storage = self._storage.get(siblings)
        if storage is None:
            storage = self._storage[siblings] = LoRASites(
                [
                    LoRASite(
                        a=self.groups[site.group].a[site.layer],
                        b=self.groups[site.group].b[site.layer],
                        group=site.group,
                        offset=offset,
                    )
                    for site, offset in zip(siblings.sites, siblings.offsets, strict=True)
                    if self.groups[site.group].table.capacity
                ]
            )
        return storage

    def can_add(self, adapter: LoRAAdapter) -> bool:
        """Whether the adapter fits into the budget beside the resident ones."""
        needed = self._pages_needed(adapter)
        used = sum(
            (group.table.num_used + needed.get(index, 0)) * group.page_bytes
            for index, group in enumerate(self.groups)
        )
        return used + self.side.num_bytes + adapter.side.num_bytes <= self._max_bytes

    def add(self, adapter: LoRAAdapter) -> None:
        """Make the adapter resident: copy its weights to the device."""
        assert adapter.version not in self._resident
        assert self.can_add(adapter)
        self.derived.clear()
        needed = self._pages_needed(adapter)
        self.side.add(adapter.version, adapter.side)
        try:
            self._make_room(needed)
        except RuntimeError:  # torch's own for a lack of memory
            self.side.remove(adapter.version)
            raise
        for index, num_pages in needed.items():
            group = self.groups[index]
            group.write(group.table.allocate(adapter.version, num_pages), adapter)
        self._resident.add(adapter.version)

    def remove(self, version: AdapterVersion) -> None:
        """Give the adapter's pages back; the storage stays for others."""
        self.derived.clear()
        self._resident.remove(version)
        self.side.remove(version)
        for group in self.groups:
            group.table.release(version)

    def _pages_needed(self, adapter: LoRAAdapter) -> dict[int, int]:
        """Pages by group index."""
        needed: dict[int, int] = {}
        for module, weights in adapter.modules.items():
            group = self.sites[module].group
            needed[group] = max(needed.get(group, 0), pages_of_rank(len(weights.a)))
        return needed

    def _make_room(self, needed: Mapping[int, int]) -> None:
        """Let every group have its free pages; slack of the others goes if the budget asks."""
        short = {
            index: group.table.num_used + needed[index]
            for index, group in enumerate(self.groups)
            if not group.table.can_allocate(needed.get(index, 0))
        }
        if self._bytes_with(short) > self._max_bytes:
            self._drop_slack()
            short = {index: self.groups[index].table.num_used + n for index, n in needed.items()}
        for index, capacity in list(short.items()):
            roomy = short | {index: capacity + capacity // 2}
            if self._bytes_with(roomy) <= self._max_bytes:
                short = roomy
        for index, capacity in short.items():
            # In this order a lack of memory leaves the table as it was.
            self._resize(self.groups[index], capacity)
            self.groups[index].table.grow(capacity)

    def _bytes_with(self, capacities: Mapping[int, int]) -> int:
        return self.side.num_bytes + sum(
            capacities.get(index, group.table.capacity) * group.page_bytes
            for index, group in enumerate(self.groups)
        )

    def _drop_slack(self) -> None:
        for group in self.groups:
            if group.table.num_used < group.table.capacity:
                group.move(group.table.shrink())
                self._resize(group, group.table.capacity)

    def _resize(self, group: PoolGroup, capacity: int) -> None:
        self._storage.clear()
        group.resize(capacity)


def _place_in_layer(name: str) -> str:
    """The part of a module's name below its layer; the whole name outside of layers."""
    parts = name.split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[numbers[0] + 1 :]) if numbers else name


def _resized(storage: torch.Tensor, num_layers: int, num_rows: int) -> torch.Tensor:
    new = storage.new_zeros(num_layers, num_rows, storage.shape[2])
    kept = min(num_rows, storage.shape[1])
    new[: storage.shape[0], :kept] = storage[:, :kept]
    return new
