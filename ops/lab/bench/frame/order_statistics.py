"""Summarises ratios of interleaved pairs by their order statistics."""

import math
import statistics
from collections.abc import Sequence

CONFIDENCE = 0.95


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return a confidence interval of the median, of at least `CONFIDENCE`, from order statistics.

    With fewer than six values the interval is unbounded. Each of n independent values is below the
    median with probability 1/2, so the number of those that are follows a binomial distribution
    (David and Nagaraja, Order Statistics, 7.1).
    """
    number, outside = len(values), 0
    below = 0.0
    while below + math.comb(number, outside) / 2**number <= (1 - CONFIDENCE) / 2:
        below += math.comb(number, outside) / 2**number
        outside += 1
    if outside == 0:
        return -math.inf, math.inf
    ordered = sorted(values)
    return ordered[outside - 1], ordered[-outside]


def ratio_text(ratios: Sequence[float]) -> str:
    """Return the median of ratios, its confidence interval, and whether the interval includes 1.

    Too few ratios have no interval; the text then has the lowest and the highest.
    """
    median = f"ratio {statistics.median(ratios):.3f}"
    low, high = median_interval(ratios)
    if math.isinf(low):
        return f"{median}, {min(ratios):.3f} to {max(ratios):.3f} in {len(ratios)} rounds"
    verdict = "includes 1" if low <= 1 <= high else "excludes 1"
    percent = f"{100 * CONFIDENCE:.0f} %"
    return f"{median}, {percent} interval {low:.3f} to {high:.3f} {verdict}"
