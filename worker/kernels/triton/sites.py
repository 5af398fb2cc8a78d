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
    """`[S, 7]` int64: the device's SITE_ constants name the fields."""
    max_out_features: int
    is_aligned: bool
    """Whether each site's columns are multiples of ALIGNED_FEATURES."""


def site_table(sites: LoRASites) -> SiteTable:
    """The table of at least one site."""
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
    # Whoever reads rows in vectors relies on it: on bytes of addresses, and elements of strides.
    assert all(row[0] % 16 == row[1] % 16 == row[2] % 8 == row[3] % 8 == 0 for row in rows)
    columns = [column for site in sites.sites for column in (site.b.shape[2], site.offset)]
    return SiteTable(
        table=torch.tensor(rows, dtype=torch.int64, device=sites.sites[0].a.device),
        max_out_features=max(site.b.shape[2] for site in sites.sites),
        is_aligned=all(column % ALIGNED_FEATURES == 0 for column in columns),
    )
