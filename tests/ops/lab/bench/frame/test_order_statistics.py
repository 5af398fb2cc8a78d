"""Confidence intervals of medians, from order statistics."""

import math
import statistics

from hypothesis import given
from hypothesis import strategies as st

from ops.lab.bench.frame.order_statistics import median_interval, ratio_text


def test_the_interval_needs_six_values() -> None:
    assert median_interval([1.0] * 5) == (-math.inf, math.inf)
    assert median_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == (1.0, 6.0)


@given(st.lists(st.floats(0.1, 10.0), min_size=6, max_size=40))
def test_the_interval_holds_the_median(values: list[float]) -> None:
    low, high = median_interval(values)
    assert min(values) <= low <= statistics.median(values) <= high <= max(values)


def test_the_text_says_whether_the_interval_includes_1() -> None:
    assert ratio_text([0.9, 0.95, 1.0, 1.0, 1.05, 1.1]) == (
        "ratio 1.000, 95 % interval 0.900 to 1.100 includes 1"
    )
    assert ratio_text([1.5] * 6) == "ratio 1.500, 95 % interval 1.500 to 1.500 excludes 1"


def test_too_few_ratios_have_no_interval() -> None:
    assert ratio_text([9.0, 11.0]) == "ratio 10.000, 9.000 to 11.000 in 2 rounds"
