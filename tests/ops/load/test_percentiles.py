import math

import pytest

from ops.load.percentiles import percentile, percentiles


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (50, 50), (50.5, 51), (95, 95), (99, 99), (100, 100)]
)
def test_a_percentile_is_the_value_of_the_nearest_rank(percent: float, expected: int) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], percent) == expected


def test_all_percentiles_of_one_value_are_that_value() -> None:
    found = percentiles([3.0])
    assert (found.p50, found.p95, found.p99) == (3.0, 3.0, 3.0)


def test_percentiles_of_nothing_are_not_a_number() -> None:
    assert math.isnan(percentiles([]).p99)
