"""Launches the LoRA kernels of `device/lora.py`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from worker.kernels.interface import LoRAPlan, LoRASites, Prepared
from worker.kernels.triton.device.lora import expand_kernel, shrink_kernel

BLOCK_ROWS = 32
"""Number of adapter rows that a program computes at once."""
DECODE_TOKENS = 16
"""Tile size, in tokens, for batches in which each adapter has at most this many tokens.

A GPU's matrix unit supports no smaller size."""
PREFILL_TOKENS = 64
"""Tile size, in tokens, for batches in which an adapter has more than DECODE_TOKENS tokens."""
NUM_SPLITS = 8
"""Number of parts of the input features. In small batches, a program sums one part only.

Therefore more programs run at the same time."""
MIN_SPLIT_FEATURES = 1024
"""Inputs are split only if there are more input features than this."""
MAX_SPLIT_TOKENS = 1024
"""Inputs are split only if the plan has at most this many tokens."""
ALIGNED_FEATURES = 16
"""Kernels access output columns as vectors if the columns are aligned to this many elements."""


@dataclass(frozen=True, slots=True)
class SiteTable(Prepared):
    """Addresses and sizes of the weights of S sibling linears. The table is on the device."""

    table: Tensor
    """`[S, 7]` int64; the SITE_ constants of `device/lora.py` name the fields."""
    max_out_features: int
    """Maximum number of output features of any site."""
    is_aligned: bool
    """Whether each site's output features and offset are multiples of ALIGNED_FEATURES."""


class _Tile(NamedTuple):
    """Tokens of one adapter at one site. TILE_ constants of `device/lora.py` index the fields."""

    site: int
    first_token: int
    num_tokens: int
    first_page: int
    num_pages: int
    pages_of_layer: int
    partials: int


@dataclass(frozen=True, slots=True)
class _Work:
    """A plan's I tiles at sibling sites. The tensors are on the device."""

    tiles: Tensor
    """`[I, 7]` int64, a `_Tile` in each row."""
    pages: Tensor
    """int32: the flattened `LoRAPages.pages` of each site's group, one site after another."""
    max_pages: int
    """Largest `num_pages` of any tile."""
    split_size: int
    """Number of partial sums of each split."""


@dataclass(slots=True)
class _PlanWork(Prepared):
    """Values and tensors that all launches with one LoRA plan share."""

    token_starts: list[int]
    """`LoRAPlan.token_starts` on the host."""
    page_starts: list[list[int]]
    """For each pool group, `LoRAPages.starts` on the host."""
    block_tokens: int
    """Maximum number of tokens in a tile."""
    works: dict[tuple[int, ...], _Work | None] = field(default_factory=dict)
    """Maps the pool groups of sibling sites to the tiles for these sites.

    The value is None if no adapter of the plan has pages in these groups."""
    partials: Tensor | None = None
    """Memory for partial sums, shared by all launches because they run one after another."""


def add_lora_(y: Tensor, x: Tensor, sites: LoRASites, plan: LoRAPlan) -> None:
    """Add LoRA terms to `y` in place; see `Kernels.add_lora_`. Rows must be contiguous."""
    if not sites.sites:
        return
    of_plan = plan.prepared
    if not isinstance(of_plan, _PlanWork):
        of_plan = plan.prepared = _plan_work(plan)
    groups = tuple(site.group for site in sites.sites)
    if groups not in of_plan.works:
        of_plan.works[groups] = _work(of_plan, plan, groups)
    work = of_plan.works[groups]
    if work is None:
        return
    of_sites = sites.prepared
    if not isinstance(of_sites, SiteTable):
        of_sites = sites.prepared = site_table(sites)
    _launch(y, x, of_sites, plan, of_plan, work)


def _launch(
    y: Tensor, x: Tensor, sites: SiteTable, plan: LoRAPlan, of_plan: _PlanWork, work: _Work
) -> None:
    in_features, num_tiles = x.shape[1], len(work.tiles)
    num_splits = _num_splits(in_features, len(plan.tokens))
    partials = _partials(of_plan, num_splits * work.split_size, x.device)
    block_tokens = of_plan.block_tokens
    shared = (plan.tokens, work.pages, work.tiles, sites.table, partials, work.split_size)
    shrink_kernel[num_tiles, triton.cdiv(work.max_pages * plan.page_rows, BLOCK_ROWS), num_splits](
        x,
        x.stride(0),
        in_features,
        *shared,
        NUM_SPLITS=num_splits,
        PAGE_ROWS=plan.page_rows,
        BLOCK_TOKENS=block_tokens,
        BLOCK_ROWS=BLOCK_ROWS,
        BLOCK_IN=128 if block_tokens == DECODE_TOKENS else 64,
        num_warps=4,
        num_stages=3,
        enable_fp_fusion=True,
    )
    block_out = 64 if y.itemsize == 4 else 128  # limited by the number of registers
    expand_kernel[num_tiles, triton.cdiv(sites.max_out_features, block_out)](
        y,
        y.stride(0),
        *shared,
        NUM_SPLITS=num_splits,
        PAGE_ROWS=plan.page_rows,
        BLOCK_TOKENS=block_tokens,
        BLOCK_ROWS=BLOCK_ROWS,
        BLOCK_OUT=block_out,
        IS_ALIGNED=sites.is_aligned,
        num_warps=4,
        num_stages=2,
        enable_fp_fusion=True,
    )


def _plan_work(plan: LoRAPlan) -> _PlanWork:
    starts = [plan.token_starts, *(of_group.starts for of_group in plan.pages)]
    # One copy from the device per plan, as each copy waits for the device.
    host = torch.stack(starts).tolist()
    most = max((stop - start for start, stop in pairwise(host[0])), default=0)
    block_tokens = DECODE_TOKENS if most <= DECODE_TOKENS else PREFILL_TOKENS
    return _PlanWork(token_starts=host[0], page_starts=host[1:], block_tokens=block_tokens)


def _work(of_plan: _PlanWork, plan: LoRAPlan, groups: Sequence[int]) -> _Work | None:
    tables = [plan.pages[group].pages.flatten() for group in groups]
    tiles: list[_Tile] = []
    first_page = split_size = 0
    for site, group in enumerate(groups):
        for tile in _tiles(of_plan, of_plan.page_starts[group]):
            tiles.append(
                tile._replace(
                    site=site, first_page=first_page + tile.first_page, partials=split_size
                )
            )
            split_size += tile.num_tokens * tile.num_pages * plan.page_rows
        first_page += len(tables[site])
    if not tiles:
        return None
    return _Work(
        tiles=torch.tensor(tiles, dtype=torch.int64, device=plan.tokens.device),
        pages=torch.cat(tables),
        max_pages=max(tile.num_pages for tile in tiles),
        split_size=split_size,
    )


def _tiles(of_plan: _PlanWork, page_starts: Sequence[int]) -> Iterator[_Tile]:
    """Yield the tiles of one site. The caller sets `site` and `partials`.

    The field `first_page` is an index into the pages of the site's group.
    """
    spans = zip(pairwise(of_plan.token_starts), pairwise(page_starts), strict=True)
    for (start, stop), (first_page, end_page) in spans:
        if first_page == end_page:
            continue
        for first in range(start, stop, of_plan.block_tokens):
            num_tokens = min(of_plan.block_tokens, stop - first)
            num_pages = end_page - first_page
            yield _Tile(0, first, num_tokens, first_page, num_pages, page_starts[-1], 0)


def _partials(of_plan: _PlanWork, size: int, device: torch.device) -> Tensor:
    if of_plan.partials is None or len(of_plan.partials) < size:
        of_plan.partials = torch.empty(size, dtype=torch.float32, device=device)
    return of_plan.partials


def _num_splits(in_features: int, num_tokens: int) -> int:
    is_split = in_features > MIN_SPLIT_FEATURES and num_tokens <= MAX_SPLIT_TOKENS
    return NUM_SPLITS if is_split else 1


def site_table(sites: LoRASites) -> SiteTable:
    """Return the table of `sites`. There must be at least one site."""
    rows = [
        [
            site.a.data_ptr(),
            site.b.data_ptr(),
            site.a.stride(0),
            site.b.stride(0),
            site.b.shape[2],
            site.offset,
            site.layer,
        ]
        for site in sites.sites
    ]
    # Kernels read rows in vectors, which requires aligned addresses (bytes) and strides (elements).
    assert all(row[0] % 16 == row[1] % 16 == row[2] % 8 == row[3] % 8 == 0 for row in rows)
    columns = [column for site in sites.sites for column in (site.b.shape[2], site.offset)]
    return SiteTable(
        table=torch.tensor(rows, dtype=torch.int64, device=sites.sites[0].a.device),
        max_out_features=max(site.b.shape[2] for site in sites.sites),
        is_aligned=all(column % ALIGNED_FEATURES == 0 for column in columns),
    )
