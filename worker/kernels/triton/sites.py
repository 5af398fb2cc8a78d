"""The pool's storage as kernels see it; `device/pages.py` reads it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from worker.kernels.interface import LoRASites

ALIGNED_FEATURES = 16


@dataclass(frozen=True, slots=True)
class SiteTable:
    """Where the weights of sibling linears are, and what kernels must know of them at launch."""

    table: Tensor
    """`[S, 4]` int64: the addresses of `a` and `b`, output features, first output column."""
    max_out_features: int
    is_aligned: bool
    """Whether each site's columns are multiples of ALIGNED_FEATURES."""


def site_table(sites: LoRASites) -> SiteTable:
    """The table of at least one site."""
    rows = []
    for site in sites.sites:
        assert site.a.is_contiguous()
        assert site.b.is_contiguous()
        rows.append([site.a.data_ptr(), site.b.data_ptr(), site.b.shape[1], site.offset])
    # Whoever reads rows in vectors of 16 bytes relies on it.
    assert all(address % 16 == 0 for row in rows for address in row[:2])
    columns = [column for row in rows for column in row[2:]]
    return SiteTable(
        table=torch.tensor(rows, dtype=torch.int64, device=sites.sites[0].a.device),
        max_out_features=max(row[2] for row in rows),
        is_aligned=all(column % ALIGNED_FEATURES == 0 for column in columns),
    )
