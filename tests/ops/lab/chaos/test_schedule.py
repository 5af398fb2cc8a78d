"""The plan of a run's faults."""

from collections import Counter

from ops.lab.chaos.schedule import WARM_UP_S, plan_faults

KINDS = ("a", "b", "c", "d", "e")


def test_each_kind_comes_once_per_round() -> None:
    plan = plan_faults(KINDS, each=3, total_s=600, seed=7)
    for start in range(0, len(plan), len(KINDS)):
        assert Counter(fault.kind for fault in plan[start : start + len(KINDS)]) == Counter(KINDS)


def test_faults_are_spread_evenly_over_the_time_after_the_warm_up() -> None:
    times = [fault.at_s for fault in plan_faults(KINDS, each=2, total_s=WARM_UP_S + 100, seed=7)]
    assert times == [WARM_UP_S + 10 * number for number in range(10)]


def test_the_seed_determines_the_order() -> None:
    first, again, other = (plan_faults(KINDS, each=3, total_s=600, seed=seed) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_a_run_without_faults_has_an_empty_plan() -> None:
    assert plan_faults((), each=3, total_s=60, seed=1) == []
    assert plan_faults(KINDS, each=0, total_s=60, seed=1) == []
