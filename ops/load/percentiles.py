"""Nearest-rank percentiles. Each percentile is one of the measured values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """P50, P95 and P99 of one quantity. All three are NaN if there are no values."""

    p50: float
    p95: float
    p99: float


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that is at least as large as `percent` % of `values`, or NaN."""
    if not values:
        return math.nan
    rank = math.ceil(percent / 100 * len(values))
    return sorted(values)[max(rank, 1) - 1]


def percentiles(values: Sequence[float]) -> Percentiles:
    """Return P50, P95 and P99 of `values`."""
    p50, p95, p99 = (percentile(values, percent) for percent in (50, 95, 99))
    return Percentiles(p50=p50, p95=p95, p99=p99)
