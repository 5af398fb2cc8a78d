from shared.protocol.ids import AdapterVersion
from worker.adapters.yield_policy import may_be_free, version_to_yield, versions_in_use

A, B, C = (AdapterVersion(f"{name}@1") for name in "abc")


def test_a_version_without_jobs_and_the_waiting_one_are_not_in_use() -> None:
    assert versions_in_use({A: 3, B: 0, C: 1}, wanted=C) == {A}


def test_the_version_with_the_fewest_jobs_yields() -> None:
    assert version_to_yield({A: 3, B: 2}, {A, B}, (), is_first_shortage=True) == B


def test_each_further_shortage_makes_a_further_version_yield() -> None:
    assert version_to_yield({A: 3, B: 2}, {A, B}, {B}, is_first_shortage=True) == A
    assert version_to_yield({A: 3, B: 2}, {A, B}, {A, B}, is_first_shortage=True) is None


def test_a_version_that_asks_again_has_a_further_one_yield_only_if_none_in_use_does() -> None:
    assert version_to_yield({A: 3, B: 1}, {A, B}, {B}, is_first_shortage=False) is None
    assert version_to_yield({A: 3}, {A}, {B}, is_first_shortage=False) == A


def test_memory_may_be_free_once_a_version_in_use_has_no_jobs() -> None:
    assert not may_be_free({A, B}, {A: 1, B: 1})
    assert may_be_free({A, B}, {A: 1})


def test_memory_may_be_free_if_nothing_was_in_use() -> None:
    assert may_be_free((), {A: 1})
