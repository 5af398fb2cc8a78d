"""Rates and times to the first token from samples of the pool's totals, and its load."""

import random
from collections.abc import Sequence

import pytest
from api_support import BASE, queue_counts

from api.pool_state.load import load_of
from api.pool_state.rates import PLOT_S, Rates, current_rates, points, quantile, rates_at
from shared.protocol.workers import FIRST_TOKEN_BOUNDS_S
from shared.store.views.history import Sample
from worker.jobs.first_tokens import FirstTokens

START_MS = 1_700_000_000_000


def sample(second: float, tokens: int = 0, done: int = 0, first: Sequence[int] = ()) -> Sample:
    return Sample(
        time_ms=START_MS + int(second * 1000),
        waiting=2,
        running=3,
        done=done,
        tokens=tokens,
        first_tokens=tuple(first) or (0,) * (len(FIRST_TOKEN_BOUNDS_S) + 1),
    )


def test_rates_are_averages_over_the_period_before_a_sample() -> None:
    samples = [sample(n, tokens=100 * n, done=2 * n) for n in range(30)]
    rates = rates_at(samples, 29, 10)
    assert (rates.tokens_per_s, rates.requests_per_s) == (100, 2)


def test_at_first_and_after_a_gap_or_a_loss_of_data_there_are_no_rates() -> None:
    assert rates_at([sample(0, tokens=500)], 0, 10) == Rates()
    assert rates_at([sample(0), sample(100, tokens=500)], 1, 10) == Rates()
    assert rates_at([sample(0, tokens=900), sample(1, tokens=5)], 1, 10) == Rates()


def test_rates_are_zero_once_nobody_samples_the_pool() -> None:
    samples = [sample(0), sample(1, tokens=10)]
    assert current_rates(samples, START_MS / 1000 + 2).tokens_per_s == 10
    assert current_rates(samples, START_MS / 1000 + 60) == Rates()
    assert current_rates([], 0) == Rates()


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_quantile_of_counted_times_is_near_that_of_the_times(share: float) -> None:
    draw = random.Random(1)
    times = sorted(draw.lognormvariate(-1, 0.8) for _ in range(5000))
    counted = FirstTokens()
    for seconds in times:
        counted.observe(seconds)
    found = quantile(counted.counts, share)
    assert found == pytest.approx(times[int(share * len(times))], rel=0.08)


def test_a_quantile_of_no_times_is_none_and_long_times_count_as_the_last_bound() -> None:
    assert quantile((0,) * 25, 0.5) is None
    counted = FirstTokens()
    counted.observe(1e6)
    assert quantile(counted.counts, 0.5) == FIRST_TOKEN_BOUNDS_S[-1]


def test_a_point_has_the_rates_and_counts_of_its_sample() -> None:
    early, late = [0] * 25, [0] * 25
    late[10] = 4
    samples = [sample(0, first=early), sample(PLOT_S, tokens=50, first=late)]
    (point,) = points(samples, [1])
    time_s, tokens_per_s, p50, p95, waiting, running = point
    assert (time_s, tokens_per_s) == (START_MS / 1000 + PLOT_S, 10)
    assert p50 is not None
    assert p95 is not None
    assert FIRST_TOKEN_BOUNDS_S[9] < p50 < p95 < FIRST_TOKEN_BOUNDS_S[10]
    assert (waiting, running) == (2, 3)


@pytest.mark.parametrize(
    ("waiting", "slots", "load"), [(56, 16, 4), (0, 0, 0), (1, 0, 1), (64, 0, 1)]
)
def test_the_load_is_the_number_of_workers_that_the_jobs_need(
    waiting: int, slots: int, load: float
) -> None:
    counts = queue_counts(waiting=waiting, running=8 if slots else 0, slots_per_worker=slots)
    assert load_of(counts, BASE) == load
