"""Percentiles by nearest rank: always a value that was measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """P50, P95 and P99 of one quantity; all NaN when nothing was measured."""

    p50: float
    p95: float
    p99: float


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` % of `values` don't exceed; NaN for no values."""
    if not values:
        return math.nan
    rank = math.ceil(percent / 100 * len(values))
    return sorted(values)[max(rank, 1) - 1]


def percentiles(values: Sequence[float]) -> Percentiles:
    """P50, P95 and P99 of `values`."""
    p50, p95, p99 = (percentile(values, percent) for percent in (50, 95, 99))
    return Percentiles(p50=p50, p95=p95, p99=p99)
