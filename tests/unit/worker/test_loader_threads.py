from worker.loader_threads import BEGINNING_S, SHARE, URGENT_SHARE, share_of_core


def test_a_long_load_alone_leaves_a_busy_engine_most_of_a_core() -> None:
    assert share_of_core(1, BEGINNING_S, is_engine_busy=True) == SHARE


def test_a_short_one_is_done_sooner() -> None:
    assert share_of_core(1, 0.0, is_engine_busy=True) == URGENT_SHARE > SHARE


def test_where_several_load_each_may_take_more_as_jobs_wait_for_them() -> None:
    assert share_of_core(2, 10.0, is_engine_busy=True) == URGENT_SHARE


def test_an_idle_engine_needs_no_core() -> None:
    for number in (1, 2):
        assert share_of_core(number, 10.0, is_engine_busy=False) == 1.0
