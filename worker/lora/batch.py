"""Which adapter computes which tokens of a step, as the LoRA kernel wants it."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from shared.ids import AdapterVersion
from worker.kernels.reference_lora import LoRABlock
from worker.lora.pages import PAGE_ROWS
from worker.lora.plan import HALF, SINGLE, Block, Rows, Segment, plan_blocks, segments_of
from worker.lora.pool import LoRAPool, PoolGroup, Site

Pages = Mapping[AdapterVersion, tuple[int, ...]]
Plan = list[tuple[Block, torch.Tensor | None]]


class LoRABatch:
    """The blocks of one batch for every module; valid until the pool changes."""

    def __init__(self, pool: LoRAPool, segments: Sequence[Segment], num_tokens: int) -> None:
        self.num_tokens = num_tokens
        self._pool = pool
        self._segments = segments
        self._plans: dict[object, Plan] = {}
        self._blocks: dict[Site, list[LoRABlock]] = {}

    def blocks(self, site: Site) -> list[LoRABlock]:
        """What the kernel needs for the module at `site`; empty if no adapter here targets it."""
        blocks = self._blocks.get(site)
        if blocks is None:
            blocks = self._blocks[site] = self._build(site)
        return blocks

    def _build(self, site: Site) -> list[LoRABlock]:
        group = self._pool.groups[site.group]
        module = group.modules[site.layer]
        blocks = []
        for block, foreign in self._plan(group):
            if any(module in self._pool.targets(s.version) for s in block.segments):
                rows = slice(*block.rows)
                a, b = group.a[site.layer, rows], group.b[site.layer, rows]
                blocks.append(LoRABlock(block.start, block.stop, a, b, foreign))
        return blocks

    def _plan(self, group: PoolGroup) -> Plan:
        """The group's blocks; groups of one width whose pages lie alike share them."""
        pages = {s.version: group.table.pages(s.version) for s in self._segments}
        num_features = group.shape.in_features + group.shape.out_features
        key = num_features, tuple(pages.values())
        if key not in self._plans:
            rows = {
                v: Rows(min(p) * PAGE_ROWS, (max(p) + 1) * PAGE_ROWS) for v, p in pages.items() if p
            }
            costs = HALF if group.a.itemsize == 2 else SINGLE
            blocks = plan_blocks(self._segments, rows, costs, num_features)
            self._plans[key] = [(b, _foreign(b, pages, group.a.device)) for b in blocks]
        return self._plans[key]


def build_batch(
    pool: LoRAPool, sequences: Sequence[tuple[AdapterVersion | None, int]]
) -> LoRABatch | None:
    """The batch of `sequences`, given as (resident adapter or None for the base, num_tokens).

    None if all are the base's: there is no LoRA work then. A batch like the last one is the last
    one; a new one may move adapters within the pool, so that its rows lie together.
    """
    key = tuple(sequences)
    batch: LoRABatch | None = pool.derived.get(key)
    if batch is None and (segments := segments_of(sequences)):
        pool.gather({s.version: None for s in segments})
        batch = LoRABatch(pool, segments, sum(num_tokens for _, num_tokens in sequences))
        pool.derived.clear()
        pool.derived[key] = batch
    return batch


def _foreign(block: Block, pages: Pages, device: torch.device) -> torch.Tensor | None:
    """The block's mask of rows that aren't a token's own; None if there are none."""
    shape = block.stop - block.start, block.rows.stop - block.rows.start
    foreign = np.ones(shape, dtype=np.bool_)
    for segment in block.segments:
        tokens = slice(segment.start - block.start, segment.stop - block.start)
        for page in pages[segment.version]:
            row = page * PAGE_ROWS - block.rows.start
            foreign[tokens, row : row + PAGE_ROWS] = False
    return torch.from_numpy(foreign).to(device) if foreign.any() else None
