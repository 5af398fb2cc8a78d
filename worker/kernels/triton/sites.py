"""Builds the table of sites that `device/pages.py` reads."""

from dataclasses import dataclass

import torch
from torch import Tensor

from worker.kernels.interface import LoRASites, Prepared

ALIGNED_FEATURES = 16
"""Column alignment, in elements, that lets kernels access a site's outputs as vectors."""


@dataclass(frozen=True, slots=True)
class SiteTable(Prepared):
    """Addresses and sizes of the weights of S sibling linears. The table is on the device."""

    table: Tensor
    """`[S, 7]` int64; the SITE_ constants of `device/pages.py` name the fields."""
    max_out_features: int
    """Maximum number of output features of any site."""
    is_aligned: bool
    """Whether each site's output features and offset are multiples of ALIGNED_FEATURES."""


def site_table(sites: LoRASites) -> SiteTable:
    """Return the table of `sites`, which must not be empty."""
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
