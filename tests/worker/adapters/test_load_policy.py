import pytest

from worker.adapters.load_policy import MAX_LOADING, can_prefetch, max_cold


@pytest.mark.parametrize(
    ("num_loading", "num_waiting", "expected"),
    [(0, 0, 2), (1, 0, 1), (2, 0, 0), (2, 1, 1), (3, 1, 0), (1, 1, 2), (2, 2, 0), (4, 2, 0)],
)
def test_a_version_that_waits_for_memory_lets_another_one_load(
    num_loading: int, num_waiting: int, expected: int
) -> None:
    assert max_cold(num_loading=num_loading, num_waiting=num_waiting) == expected


def test_one_version_is_prefetched_at_a_time() -> None:
    assert can_prefetch(num_loading=0, num_waiting=0, num_prefetching=0)
    assert not can_prefetch(num_loading=0, num_waiting=0, num_prefetching=1)


def test_loads_for_claimed_jobs_come_before_prefetches() -> None:
    assert can_prefetch(num_loading=MAX_LOADING - 1, num_waiting=0, num_prefetching=0)
    assert not can_prefetch(num_loading=MAX_LOADING, num_waiting=0, num_prefetching=0)
    assert not can_prefetch(num_loading=1, num_waiting=1, num_prefetching=0)
