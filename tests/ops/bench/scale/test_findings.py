"""Summaries of the measurements with simulated engines."""

from ops.bench.scale.fairness.finding import fairness_finding
from ops.bench.scale.fairness.rounds import QUICK as FAIR_SIZES
from ops.bench.scale.fairness.rounds import Round as FairRound
from ops.bench.scale.first_token import QUICK as FIRST_SIZES
from ops.bench.scale.first_token import Compared, first_token_finding
from ops.bench.scale.worker_rates import FULL as RATE_SIZES
from ops.bench.scale.worker_rates import Rate, worker_rates_finding
from ops.bench.scale.worker_rates import Round as RateRound


def compared(p99_ms: float) -> Compared:
    served = (*([6.0] * 98), p99_ms, p99_ms)
    return Compared(background=0, direct_ms=(2.0,) * 100, served_ms=served, api_cores=0.1)


def test_a_first_token_is_compared_with_a_direct_call() -> None:
    (line,) = first_token_finding([compared(9)], FIRST_SIZES).says
    assert "p50 6.0 ms, 4.0 over a direct call; p99 9.0 ms, 7.0 over it" in line
    assert "met" in line
    (line,) = first_token_finding([compared(17.1)], FIRST_SIZES).says
    assert "missed" in line


def rate(workers: int, tokens_per_s: float) -> Rate:
    return Rate(
        workers=workers, tokens_per_s=tokens_per_s, ceiling_tokens_per_s=1, cores={"redis": 0.1}
    )


def test_many_workers_are_compared_with_as_many_times_one() -> None:
    rounds = [RateRound(one=rate(1, 10), many=rate(16, many)) for many in (160, 155, 152)]
    share, cores = worker_rates_finding(rounds, RATE_SIZES).says
    assert "96.9 % (95.0 to 100.0) of 16 times" in share
    assert "met" in share
    assert cores == "cores in use with 16 workers: redis 0.10"
    rounds.append(RateRound(one=rate(1, 10), many=rate(16, 151)))
    assert "missed" in worker_rates_finding(rounds, RATE_SIZES).says[0]


def fair_round(beside_s: float, gold_per_silver: float) -> FairRound:
    return FairRound(
        alone_s={"light-0": 1.0, "light-1": 2.0},
        beside_s={"light-0": 1.2, "light-1": beside_s},
        gold_per_silver=gold_per_silver,
    )


def test_the_tenant_that_waits_longest_counts() -> None:
    ratio, weights = fairness_finding([fair_round(2.8, 4.1)], FAIR_SIZES).says
    assert "at most 1.40 x" in ratio
    assert "met" in ratio
    assert "met" in weights
    ratio, weights = fairness_finding([fair_round(3.1, 3.5)], FAIR_SIZES).says
    assert "missed" in ratio
    assert "missed" in weights
