"""Memory layout of adapter weights in the device pool and in host memory.

A page holds PAGE_ROWS rows of a linear's matrix A, `[PAGE_ROWS, in]`, followed by the same number
of rows of the transposed and scaled matrix B, `[PAGE_ROWS, out]`. Linears that have the same shape
and the same place in their layers form a group. So do the weights of experts, one after another. An
adapter that targets a group has the same number of pages for each layer of the group. This number
is determined by the adapter's largest rank in the group. Unused rows are zero.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor

from shared.protocol.ids import AdapterVersion
from worker.lora.base.modules import BaseModules, ModuleShape, place_in_layer
from worker.lora.checkpoint.adapter import LoRAAdapter
from worker.lora.checkpoint.low_rank import LowRankStack
from worker.lora.memory.arena import copy_pieces, cut_pieces, fill_zeros
from worker.lora.memory.pages import PAGE_ROWS, UNIT_BYTES, Blocks, pages_of_rank, units_of
from worker.lora.scratch_buffer import scratch
from worker.lora.side.weights import SideWeights, packed_bytes, unpacked
from worker.lora.throttle import pause


class Site(NamedTuple):
    """Location of a linear's weights in the pool."""

    group: int
    layer: int
    """Index of the linear in its group. The index may differ from the model's layer number."""


class GroupPages(NamedTuple):
    """Number of pages that an adapter has in one group."""

    group: int
    num_pages: int
    """Number of pages for each layer."""


@dataclass(frozen=True, slots=True)
class PoolGroup:
    """A group of linears that have the same shape and the same place in their layers."""

    shape: ModuleShape
    modules: tuple[str, ...]
    page_units: int

    @property
    def num_layers(self) -> int:
        """Number of linears in the group."""
        return len(self.modules)

    @property
    def b_start(self) -> int:
        """Offset of B in a page, in elements."""
        return PAGE_ROWS * self.shape.in_features


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdapterImage:
    """An adapter's weights in the pool's layout, ordered by group, then layer, then page."""

    version: AdapterVersion
    weights_digest: str
    group_pages: tuple[GroupPages, ...]
    side: SideWeights
    """Shapes and dtypes of the side weights, as tensors on the `meta` device."""
    num_bytes: int
    """Total size of the pages and the side weights in bytes."""
    copy_to: Callable[[Sequence[Tensor]], None]
    """Writes the pages, then the side weights, to the concatenation of the given flat tensors."""


class PoolLayout:
    """Groups a base model's linears and computes the size of their pages in one dtype."""

    def __init__(self, base: BaseModules, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.unit = UNIT_BYTES // dtype.itemsize
        """Number of elements in a memory unit."""
        places: dict[tuple[str, ModuleShape], list[str]] = {}
        for name, shape in base.linears.items():
            places.setdefault((place_in_layer(name), shape), []).append(name)
        for weight in base.experts.values():
            shape = ModuleShape(weight.in_features, weight.out_features)
            places.setdefault((place_in_layer(weight.name), shape), []).extend(weight.linears)
        self.groups = tuple(
            PoolGroup(shape, tuple(names), self._page_units(shape))
            for (_, shape), names in places.items()
        )

    @cached_property
    def sites(self) -> dict[str, Site]:
        """Site of each linear of the base, by module name."""
        return {
            name: Site(index, layer)
            for index, group in enumerate(self.groups)
            for layer, name in enumerate(group.modules)
        }

    def blocks(self, pages: GroupPages) -> Blocks:
        """Return the memory blocks that an adapter's pages in one group take."""
        group = self.groups[pages.group]
        return Blocks(group.num_layers * pages.num_pages, group.page_units)

    def image(self, adapter: LoRAAdapter) -> AdapterImage:
        """Return the image of an adapter. Its `copy_to` converts the weights to this layout."""
        group_pages = self._group_pages(adapter)
        return AdapterImage(
            version=adapter.version,
            weights_digest=adapter.weights_digest,
            group_pages=group_pages,
            side=adapter.side.map(lambda tensor: torch.empty_like(tensor, device="meta")),
            num_bytes=sum(self._sizes(group_pages, adapter.side)) * self.dtype.itemsize,
            copy_to=partial(self._write, adapter, group_pages),
        )

    def _write(
        self, adapter: LoRAAdapter, group_pages: Sequence[GroupPages], targets: Sequence[Tensor]
    ) -> None:
        """Write an adapter's image to `targets`, flat tensors on any device.

        A part whose target isn't a single CPU tensor is first written to scratch memory.
        """
        sizes = self._sizes(group_pages, adapter.side)
        for index, pieces in enumerate(cut_pieces(targets, sizes)):
            is_direct = len(pieces) == 1 and pieces[0].device.type == "cpu"
            data = pieces[0] if is_direct else self._scratch(sizes[index])
            if index < len(group_pages):
                self._fill(group_pages[index], data, adapter)
            else:
                _fill_side(data, adapter.side)
            if not is_direct:
                copy_pieces([data], pieces)

    def _scratch(self, size: int) -> Tensor:
        return torch.frombuffer(scratch(size * self.dtype.itemsize), dtype=self.dtype)

    def _sizes(self, group_pages: Sequence[GroupPages], side: SideWeights) -> list[int]:
        """Return the size in elements of each group's pages, and then of the side weights.

        The last size is missing if there are no side weights.
        """
        blocks = [*map(self.blocks, group_pages), *side_blocks(side)]
        return [self.unit * number * units for number, units in blocks]

    def _page_units(self, shape: ModuleShape) -> int:
        width = shape.in_features + shape.out_features
        return units_of(PAGE_ROWS * width * self.dtype.itemsize)

    def _group_pages(self, adapter: LoRAAdapter) -> tuple[GroupPages, ...]:
        num_pages: dict[int, int] = {}
        for stack in adapter.modules.stacks:
            group = self._group_of(stack)
            num_pages[group] = max(num_pages.get(group, 0), pages_of_rank(stack.rank))
        return tuple(GroupPages(group, num_pages[group]) for group in sorted(num_pages))

    def _group_of(self, stack: LowRankStack) -> int:
        return self.sites[stack.modules[0]].group

    def _fill(self, group_pages: GroupPages, data: Tensor, adapter: LoRAAdapter) -> None:
        """Write an adapter's pages in one group to `data`, a flat tensor on the CPU."""
        group = self.groups[group_pages.group]
        stacks = [s for s in adapter.modules.stacks if self._group_of(s) == group_pages.group]
        rows = sum(len(stack.modules) * stack.rank for stack in stacks)
        if rows < group.num_layers * group_pages.num_pages * PAGE_ROWS:
            fill_zeros(data)
        pages = data.view(group.num_layers, group_pages.num_pages, group.page_units * self.unit)
        for stack in stacks:
            layers = [self.sites[module].layer for module in stack.modules]
            for layer_slice, stack_slice in _consecutive_runs(layers):
                a, b = stack.a[stack_slice], stack.b[stack_slice].transpose(1, 2)
                _write_rows(pages[layer_slice], 0, group.shape.in_features, a, 1.0)
                _write_rows(
                    pages[layer_slice], group.b_start, group.shape.out_features, b, stack.factor
                )


def side_blocks(side: SideWeights) -> list[Blocks]:
    """Return a list with the memory block for `side`; an empty list if it has no side weights."""
    num_bytes = packed_bytes(side)
    return [Blocks(1, units_of(num_bytes))] if num_bytes else []


def _fill_side(data: Tensor, side: SideWeights) -> None:
    targets = unpacked(side, data.view(torch.uint8))
    for source, target in zip(side.tensors, targets.tensors, strict=True):
        copy_pieces([source.flatten()], [target.flatten()])


def _consecutive_runs(numbers: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Split `numbers` into runs of consecutive numbers, and yield two slices for each run.

    The first slice covers the run's numbers. The second slice covers the indices of these numbers
    in `numbers`.
    """
    start = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
            yield slice(numbers[start], numbers[end - 1] + 1), slice(start, end)
            start = end


def _write_rows(pages: Tensor, start: int, width: int, rows: Tensor, factor: float) -> None:
    """Write `factor * rows` `[layers, r, width]` to `pages` `[layers, pages, elements of a page]`.

    The rows begin at element `start` of each page. `factor` is a power of two, so the product is
    exact. The function uses few operations, because many would make the engine wait for the
    interpreter.
    """
    pause()
    layers, rank, _ = rows.shape
    end = start + PAGE_ROWS * width
    places = pages[:, :, start:end].view(layers, -1, PAGE_ROWS, width)
    num_full, rest = divmod(rank, PAGE_ROWS)
    full = rows[:, : rank - rest].view(layers, num_full, PAGE_ROWS, width)
    _copy_multiplied(full, factor, places[:, :num_full])
    if rest:
        _copy_multiplied(rows[:, rank - rest :], factor, places[:, num_full, :rest])


def _copy_multiplied(source: Tensor, factor: float, target: Tensor) -> None:
    target.copy_(source)
    if factor != 1:
        target.mul_(factor)  # one fused operation would iterate in the source's memory order
