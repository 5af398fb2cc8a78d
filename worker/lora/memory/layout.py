"""How an adapter's weights lie in memory: in the pool, and in copies that wait for it.

A page holds PAGE_ROWS rows of one linear: its A `[PAGE_ROWS, in]`, then its B, transposed and
scaled, `[PAGE_ROWS, out]`. Linears of the same shape, at the same place in each layer, are a
group. An adapter has pages of the groups that it targets, as many as its largest rank there needs,
and of each layer; rows that it doesn't use are zero.
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
    """Where a module's weights are in the pool."""

    group: int
    layer: int
    """Index within the group, not the model's number of the layer."""


class Part(NamedTuple):
    """What an adapter has of one group."""

    group: int
    num_pages: int
    """Of each layer."""


@dataclass(frozen=True, slots=True)
class PoolGroup:
    """Linears of one shape at the same place in each layer."""

    shape: ModuleShape
    modules: tuple[str, ...]
    page_units: int

    @property
    def num_layers(self) -> int:
        """How many linears there are."""
        return len(self.modules)

    @property
    def b_start(self) -> int:
        """Where B begins in a page, in elements."""
        return PAGE_ROWS * self.shape.in_features


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdapterImage:
    """An adapter's weights as they lie in memory: by part, then layer, then page."""

    version: AdapterVersion
    weights_digest: str
    parts: tuple[Part, ...]
    side: SideWeights
    """What it has besides, as tensors without memory."""
    num_bytes: int
    """Of all pages and side weights."""
    copy_to: Callable[[Sequence[Tensor]], None]
    """Writes first the pages, then the side weights to flat tensors, one behind the other."""


class PoolLayout:
    """Which linears a base has, and what their pages are like in one dtype."""

    def __init__(self, base: BaseModules, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.unit = UNIT_BYTES // dtype.itemsize
        """Elements of a unit."""
        places: dict[tuple[str, ModuleShape], list[str]] = {}
        for name, shape in base.linears.items():
            places.setdefault((place_in_layer(name), shape), []).append(name)
        self.groups = tuple(
            PoolGroup(shape, tuple(names), self._page_units(shape))
            for (_, shape), names in places.items()
        )

    @cached_property
    def sites(self) -> dict[str, Site]:
        """Where each linear of the base has its weights, by module name."""
        return {
            name: Site(index, layer)
            for index, group in enumerate(self.groups)
            for layer, name in enumerate(group.modules)
        }

    def blocks(self, part: Part) -> Blocks:
        """What memory a part takes."""
        group = self.groups[part.group]
        return Blocks(group.num_layers * part.num_pages, group.page_units)

    def image(self, adapter: LoRAAdapter) -> AdapterImage:
        """An adapter's image, which is made when it is copied; the adapter fits the base."""
        parts = self._parts(adapter)
        return AdapterImage(
            version=adapter.version,
            weights_digest=adapter.weights_digest,
            parts=parts,
            side=adapter.side.map(lambda tensor: torch.empty_like(tensor, device="meta")),
            num_bytes=sum(self._sizes(parts, adapter.side)) * self.dtype.itemsize,
            copy_to=partial(self._make, adapter, parts),
        )

    def _make(self, adapter: LoRAAdapter, parts: Sequence[Part], targets: Sequence[Tensor]) -> None:
        """Write an image, part by part, right where it is wanted if that can be."""
        sizes = self._sizes(parts, adapter.side)
        for index, pieces in enumerate(cut_pieces(targets, sizes)):
            is_there = len(pieces) == 1 and pieces[0].device.type == "cpu"
            data = pieces[0] if is_there else self._scratch(sizes[index])
            if index < len(parts):
                self._fill(parts[index], data, adapter)
            else:
                _fill_side(data, adapter.side)
            if not is_there:
                copy_pieces([data], pieces)

    def _scratch(self, size: int) -> Tensor:
        return torch.frombuffer(scratch(size * self.dtype.itemsize), dtype=self.dtype)

    def _sizes(self, parts: Sequence[Part], side: SideWeights) -> list[int]:
        """Elements of each part, and of the side weights if there are any."""
        blocks = [*map(self.blocks, parts), *side_blocks(side)]
        return [self.unit * number * units for number, units in blocks]

    def _page_units(self, shape: ModuleShape) -> int:
        width = shape.in_features + shape.out_features
        return units_of(PAGE_ROWS * width * self.dtype.itemsize)

    def _parts(self, adapter: LoRAAdapter) -> tuple[Part, ...]:
        num_pages: dict[int, int] = {}
        for stack in adapter.modules.stacks:
            group = self._group_of(stack)
            num_pages[group] = max(num_pages.get(group, 0), pages_of_rank(stack.rank))
        return tuple(Part(group, num_pages[group]) for group in sorted(num_pages))

    def _group_of(self, stack: LowRankStack) -> int:
        return self.sites[stack.modules[0]].group

    def _fill(self, part: Part, data: Tensor, adapter: LoRAAdapter) -> None:
        group = self.groups[part.group]
        stacks = [s for s in adapter.modules.stacks if self._group_of(s) == part.group]
        rows = sum(len(stack.modules) * stack.rank for stack in stacks)
        if rows < group.num_layers * part.num_pages * PAGE_ROWS:
            fill_zeros(data)
        pages = data.view(group.num_layers, part.num_pages, group.page_units * self.unit)
        for stack in stacks:
            layers = [self.sites[module].layer for module in stack.modules]
            for some, at in _runs(layers):
                a, b = stack.a[at], stack.b[at].transpose(1, 2)
                _put(pages[some], 0, group.shape.in_features, a, 1.0)
                _put(pages[some], group.b_start, group.shape.out_features, b, stack.factor)


def side_blocks(side: SideWeights) -> list[Blocks]:
    """What memory side weights take: one block, or none."""
    num_bytes = packed_bytes(side)
    return [Blocks(1, units_of(num_bytes))] if num_bytes else []


def _fill_side(data: Tensor, side: SideWeights) -> None:
    targets = unpacked(side, data.view(torch.uint8))
    for source, target in zip(side.tensors, targets.tensors, strict=True):
        copy_pieces([source.flatten()], [target.flatten()])


def _runs(numbers: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Which ascending `numbers` follow each other, as slices of what they count and of them."""
    start = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
            yield slice(numbers[start], numbers[end - 1] + 1), slice(start, end)
            start = end


def _put(pages: Tensor, start: int, width: int, rows: Tensor, factor: float) -> None:
    """Write `factor` times each layer's `rows` `[layers, r, width]` to its pages.

    They begin at element `start` of each page. Many layers in one operation: many small ones would
    take the interpreter from the engine.
    """
    pause()
    layers, rank, _ = rows.shape
    end = start + PAGE_ROWS * width
    places = pages[:, :, start:end].view(layers, -1, PAGE_ROWS, width)
    num_full, rest = divmod(rank, PAGE_ROWS)
    full = rows[:, : rank - rest].view(layers, num_full, PAGE_ROWS, width)
    _multiply(full, factor, places[:, :num_full])
    if rest:
        _multiply(rows[:, rank - rest :], factor, places[:, num_full, :rest])


def _multiply(source: Tensor, factor: float, target: Tensor) -> None:
    target.copy_(source)
    if factor != 1:
        target.mul_(factor)  # in one operation with the copy, it would go over source's order
