"""A cache in which no tenant evicts another tenant's values while it has more of its own."""

from hypothesis import given
from hypothesis import strategies as st

from worker.text.grammar_cache import TenantCache

MAX_VALUES = 8
USES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12)), max_size=80)


def test_a_tenant_does_not_see_another_tenants_values() -> None:
    cache: TenantCache[int] = TenantCache(MAX_VALUES)
    cache.put("a", b"key", 1)
    assert cache.get("b", b"key") is None


@given(USES)
def test_a_fair_share_of_the_latest_values_is_kept(uses: list[tuple[str, int]]) -> None:
    cache: TenantCache[int] = TenantCache(MAX_VALUES)
    order: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    for tenant, number in uses:
        key = bytes([number])
        if cache.get(tenant, key) is None:
            cache.put(tenant, key, number)
        if number in order[tenant]:
            order[tenant].remove(number)
        order[tenant].append(number)
        for each, numbers in order.items():
            for recent in numbers[-(MAX_VALUES // len(order)) :]:
                assert bytes([recent]) in cache._values[each]
        assert sum(map(len, cache._values.values())) <= MAX_VALUES
