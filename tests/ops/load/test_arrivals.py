"""Arrival times of open loops follow the documented distribution."""

import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.load.arrivals import Open, due_times_s

rates = st.floats(0.01, 1000)
shapes = st.floats(0.2, 50)


def gaps(arrivals: Open, seed: str = "", number: int = 20_000) -> list[float]:
    times = due_times_s(arrivals, number, seed)
    return [b - a for a, b in pairwise([0.0, *times])]


@given(rates, shapes, st.text(), st.integers(0, 50))
def test_arrivals_are_in_order_and_the_same_for_the_same_seed(
    rate: float, burstiness: float, seed: str, number: int
) -> None:
    arrivals = Open(rate=rate, burstiness=burstiness)
    times = due_times_s(arrivals, number, seed)
    assert len(times) == number
    assert times == sorted(times)
    assert all(time >= 0 for time in times)
    assert times == due_times_s(arrivals, number, seed)


@given(st.floats(0.01, 1000), shapes)
def test_a_faster_rate_is_the_same_pattern_in_less_time(rate: float, burstiness: float) -> None:
    slow = due_times_s(Open(rate=rate, burstiness=burstiness), 20, "s")
    fast = due_times_s(Open(rate=4 * rate, burstiness=burstiness), 20, "s")
    assert [4 * time for time in fast] == pytest.approx(slow)


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gaps_have_the_mean_and_the_variation_of_their_gamma_distribution(
    burstiness: float,
) -> None:
    found = gaps(Open(rate=5.0, burstiness=burstiness))
    mean = statistics.fmean(found)
    assert mean == pytest.approx(1 / 5, rel=0.05)
    assert statistics.stdev(found) / mean == pytest.approx(burstiness**-0.5, rel=0.05)


def test_burstiness_1_is_a_poisson_process() -> None:
    found = gaps(Open(rate=1.0))
    # An exponential gap is over t with probability e^-t.
    assert sum(gap > 1 for gap in found) / len(found) == pytest.approx(0.3679, rel=0.05)
    assert sum(gap > 2 for gap in found) / len(found) == pytest.approx(0.1353, rel=0.1)


def test_other_seeds_give_other_times() -> None:
    assert due_times_s(Open(rate=1.0), 3, "a") != due_times_s(Open(rate=1.0), 3, "b")
