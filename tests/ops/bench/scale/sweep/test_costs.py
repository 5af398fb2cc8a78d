"""CPU time split into a constant, a cost per job and a cost per token."""

import pytest

from ops.bench.scale.sweep.costs import Costs, Use, split_costs

COSTS = Costs(idle_cores=0.1, us_per_job=500, us_per_token=20)


def use(jobs: float, tokens: float, seconds: float = 10) -> Use:
    cpu_s = seconds * COSTS.cores(jobs / seconds, tokens / seconds)
    return Use(seconds=seconds, jobs=jobs, tokens=tokens, cpu_s=cpu_s)


def test_the_costs_of_loads_are_found_again() -> None:
    found = split_costs([use(0, 0), use(1000, 1000), use(100, 6400), use(200, 12_800)])
    assert (found.idle_cores, found.us_per_job, found.us_per_token) == pytest.approx((0.1, 500, 20))


def test_two_loads_are_enough_if_the_constant_is_known() -> None:
    found = split_costs([use(1000, 1000), use(100, 6400)], idle_cores=0.1)
    assert (found.us_per_job, found.us_per_token) == pytest.approx((500, 20))
