from hypothesis import given, settings
from hypothesis import strategies as st

from shared.protocol.ids import AdapterVersion
from shared.store.queue_replies import Copy
from worker.adapters.replica_policy import KEPT_STEALS, Spread

A, B = (AdapterVersion(f"{name}@1") for name in "ab")
STEAL_MS = 250
KEEP_MS = KEPT_STEALS * STEAL_MS


def spread_of(*versions: AdapterVersion) -> Spread:
    spread = Spread()
    spread.came(versions)
    return spread


def test_only_copies_that_came_beside_another_holder_are_ever_due() -> None:
    spread = Spread()
    spread.note({A: Copy.SURPLUS}, 0)
    assert spread.copies == []
    assert spread.due(10 * KEEP_MS, STEAL_MS) == set()


def test_a_copy_is_due_when_it_was_surplus_for_long_enough() -> None:
    spread = spread_of(A, B)
    spread.note({A: Copy.SURPLUS, B: Copy.NEEDED}, 100)
    spread.note({A: Copy.SURPLUS, B: Copy.SURPLUS}, 200)
    assert spread.due(99 + KEEP_MS, STEAL_MS) == set()
    assert spread.due(100 + KEEP_MS, STEAL_MS) == {A}
    assert spread.due(200 + KEEP_MS, STEAL_MS) == {A, B}


def test_slower_loads_keep_copies_for_longer() -> None:
    spread = spread_of(A)
    spread.note({A: Copy.SURPLUS}, 0)
    assert spread.due(KEEP_MS, 2 * STEAL_MS) == set()
    assert spread.due(2 * KEEP_MS, 2 * STEAL_MS) == {A}


def test_a_copy_that_was_needed_once_more_is_kept_as_long_again() -> None:
    spread = spread_of(A)
    for now_ms, copy in ((0, Copy.SURPLUS), (100, Copy.NEEDED), (200, Copy.SURPLUS)):
        spread.note({A: copy}, now_ms)
    assert spread.due(199 + KEEP_MS, STEAL_MS) == set()
    assert spread.due(200 + KEEP_MS, STEAL_MS) == {A}


def test_a_copy_that_was_given_up_makes_room_first_until_it_is_used() -> None:
    spread = spread_of(A, B)
    assert spread.note({A: Copy.GONE, B: Copy.NEEDED}, 0) == {A}
    assert (spread.surplus, spread.copies, spread.num_given_up) == ({A}, [B], 1)
    spread.used(A)
    assert spread.surplus == set()


def test_the_last_holder_has_no_copy_to_give_up() -> None:
    spread = spread_of(A)
    assert spread.note({A: Copy.SOLE}, 0) == set()
    assert (spread.surplus, spread.copies) == (set(), [])


def test_what_is_evicted_is_no_copy_any_more() -> None:
    spread = spread_of(A, B)
    spread.note({A: Copy.GONE}, 0)
    spread.left([A, B])
    assert (spread.surplus, spread.copies) == (set(), [])


def test_what_was_evicted_while_the_pool_was_asked_is_gone_for_it_and_not_surplus_here() -> None:
    spread = spread_of(A)
    spread.left([A])
    assert spread.note({A: Copy.GONE}, 0) == {A}
    assert spread.surplus == set()


events = st.tuples(
    st.sampled_from(("came", "used", "left", *Copy)), st.sampled_from((A, B)), st.integers(0, 9999)
)


@settings(max_examples=500)
@given(st.lists(events, max_size=40))
def test_no_copy_is_due_before_it_was_surplus_all_the_time(
    happened: list[tuple[str, AdapterVersion, int]],
) -> None:
    spread, now_ms, not_surplus_ms = Spread(), 0, {A: 0, B: 0}
    for kind, version, passed_ms in happened:
        now_ms += passed_ms
        if isinstance(kind, Copy):
            spread.note({version: kind}, now_ms)
        elif kind == "used":
            spread.used(version)
        else:
            getattr(spread, kind)([version])
        if kind not in {Copy.SURPLUS, "used"}:
            not_surplus_ms[version] = now_ms
        for due in spread.due(now_ms, STEAL_MS):
            assert now_ms - not_surplus_ms[due] >= KEEP_MS
        assert not spread.surplus.intersection(spread.copies)
