from shared.protocol.ids import AdapterVersion
from worker.engine.adapter_lru import AdapterLRU, version_to_evict
from worker.engine.interface import LEAST_RECENTLY_USED, EvictionOrder

A, B, C = (AdapterVersion(f"{name}@1") for name in "abc")


def residents() -> AdapterLRU:
    made = AdapterLRU()
    for version in (A, B, C):
        made.add(version, f"weights of {version}")
    return made


def test_what_is_gone_is_not_resident_and_may_go_twice() -> None:
    all_three = residents()
    for _ in range(2):
        all_three.discard(B)
    assert B not in all_three
    assert list(all_three) == [A, C]


def test_use_does_not_change_what_weights_a_version_has() -> None:
    all_three = residents()
    all_three.record_use(B)
    assert all_three.weights_digest(B) == "weights of b@1"


def test_the_least_recently_used_goes_unless_the_order_says_otherwise() -> None:
    assert version_to_evict([A, B, C], LEAST_RECENTLY_USED) == A
    assert version_to_evict([A, B, C], EvictionOrder(first={C, B})) == B
    assert version_to_evict([A, B, C], EvictionOrder(last={A})) == B
    assert version_to_evict([A, B, C], EvictionOrder(last={A, B, C})) == A
    assert version_to_evict([A, B, C], EvictionOrder(first={C}, last={A, C})) == C
