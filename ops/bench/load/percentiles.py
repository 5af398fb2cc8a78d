"""Nearest-rank percentiles, which are always measured values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """P50, P95 and P99 of one quantity; all are NaN without values."""

    p50: float
    p95: float
    p99: float


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that `percent` % of `values` don't exceed; NaN without values."""
    if not values:
        return math.nan
    rank = math.ceil(percent / 100 * len(values))
    return sorted(values)[max(rank, 1) - 1]


def percentiles(values: Sequence[float]) -> Percentiles:
    """Return P50, P95 and P99 of `values`."""
    p50, p95, p99 = (percentile(values, percent) for percent in (50, 95, 99))
    return Percentiles(p50=p50, p95=p95, p99=p99)
