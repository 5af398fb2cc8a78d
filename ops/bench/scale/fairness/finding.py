"""Summarises the measurement of fairness."""

from collections.abc import Sequence
from statistics import mean

from ops.bench.compare.results import Spread, spread
from ops.bench.probes.finding import Chart, Finding, Points
from ops.bench.scale.fairness.rounds import GOLD_WEIGHT, Round, Sizes

MAX_RATIO = 1.5
"""Target for the waiting time of a light tenant beside a heavy one, against its time without."""
MAX_WEIGHT_ERROR = 0.1
"""Target for the deviation of the ratio of served jobs from the ratio of the weights."""


def fairness_finding(rounds: Sequence[Round], sizes: Sizes) -> Finding:
    """Return a finding with the largest ratio of waiting times, and the shares by weight."""
    largest = spread([max(one.ratios.values()) for one in rounds])
    shares = spread([one.gold_per_silver for one in rounds])
    series: dict[str, Points] = {}
    for name, waits in (("alone", "alone_s"), (f"beside {sizes.heavy_jobs} jobs", "beside_s")):
        series[name] = [
            (n + 1, mean(getattr(one, waits)[tenant] for one in rounds))
            for n, tenant in enumerate(sizes.light)
        ]
    return Finding(
        name="fairness",
        figures={"sizes": sizes, "rounds": rounds, "largest_ratio": largest, "shares": shares},
        says=(_ratio_line(largest, rounds, sizes), _weight_line(shares)),
        chart=Chart(x="light tenant", y="seconds to the first token", series=series, joined=False),
    )


def _ratio_line(largest: Spread, rounds: Sequence[Round], sizes: Sizes) -> str:
    alone = mean(value for one in rounds for value in one.alone_s.values())
    beside = mean(value for one in rounds for value in one.beside_s.values())
    return (
        f"{sizes.light_tenants} tenants with {sizes.light_jobs} jobs each beside one with "
        f"{sizes.heavy_jobs:,}: each waits {beside:.2f} s instead of {alone:.2f} s on average, at "
        f"most {largest.median:.2f} x ({largest.low:.2f} to {largest.high:.2f}) its time without "
        f"it (target {MAX_RATIO}: {'met' if largest.high <= MAX_RATIO else 'missed'})"
    )


def _weight_line(shares: Spread) -> str:
    is_met = all(
        abs(share / GOLD_WEIGHT - 1) <= MAX_WEIGHT_ERROR for share in (shares.low, shares.high)
    )
    return (
        f"weights {GOLD_WEIGHT}:1: {shares.median:.2f} ({shares.low:.2f} to {shares.high:.2f}) "
        f"jobs per job of the other tenant (target {GOLD_WEIGHT}:1 within "
        f"{100 * MAX_WEIGHT_ERROR:.0f} %: {'met' if is_met else 'missed'})"
    )
