from worker.adapters.loader_threads import CROWDED_SHARE, SHARE, share_of_core


def test_a_load_alone_leaves_a_busy_engine_most_of_a_core() -> None:
    assert share_of_core(1, is_engine_busy=True) == SHARE


def test_where_several_load_each_may_take_more_as_jobs_wait_for_them() -> None:
    assert share_of_core(2, is_engine_busy=True) == CROWDED_SHARE > SHARE


def test_an_idle_engine_needs_no_core() -> None:
    assert share_of_core(1, is_engine_busy=False) == share_of_core(2, is_engine_busy=False) == 1.0
