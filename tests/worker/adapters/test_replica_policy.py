from hypothesis import given, settings
from hypothesis import strategies as st

from shared.protocol.queue_replies import ReplicaStanding
from worker.adapters.replica_policy import KEPT_STEALS, Replica

STEAL_MS = 250
KEEP_MS = KEPT_STEALS * STEAL_MS


def after(*standings: tuple[int, ReplicaStanding]) -> Replica | None:
    """The replica after the pool reported these standings, each at its time in ms."""
    replica: Replica | None = Replica()
    for now_ms, standing in standings:
        replica = replica.after(standing, now_ms)
    return replica


def test_a_replica_is_due_once_it_was_surplus_for_long_enough() -> None:
    replica = after((100, ReplicaStanding.SURPLUS), (200, ReplicaStanding.SURPLUS))
    assert not replica.is_due(99 + KEEP_MS, STEAL_MS)
    assert replica.is_due(100 + KEEP_MS, STEAL_MS)


def test_slower_loads_keep_replicas_for_longer() -> None:
    replica = after((0, ReplicaStanding.SURPLUS))
    assert not replica.is_due(KEEP_MS, 2 * STEAL_MS)
    assert replica.is_due(2 * KEEP_MS, 2 * STEAL_MS)


def test_the_last_holder_has_no_replica() -> None:
    assert after((0, ReplicaStanding.SOLE)) is None


def test_a_replica_that_was_given_up_is_none() -> None:
    assert after((0, ReplicaStanding.GONE)) is None


@settings(max_examples=500)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 9999), st.sampled_from((ReplicaStanding.SURPLUS, ReplicaStanding.NEEDED))
        ),
        max_size=40,
    )
)
def test_no_replica_is_due_before_it_was_surplus_all_the_time(
    reports: list[tuple[int, ReplicaStanding]],
) -> None:
    replica, now_ms, needed_ms = Replica(), 0, 0
    for passed_ms, standing in reports:
        now_ms += passed_ms
        changed = replica.after(standing, now_ms)
        assert changed is not None
        replica = changed
        if standing is ReplicaStanding.NEEDED:
            needed_ms = now_ms
        assert not replica.is_due(now_ms, STEAL_MS) or now_ms - needed_ms >= KEEP_MS
