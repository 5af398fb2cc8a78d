import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lora import made_adapter, made_base, made_pool

from worker.lora.adapter import LoRAAdapter
from worker.lora.pages import PAGE_ROWS
from worker.lora.pool import LoRAPool, Site

BASE = made_base()
Q = {"layers.0.q": 8, "layers.1.q": 8}
ALL = dict.fromkeys(BASE.linears, 8)
PAGE_Q = 2 * 8 * (16 + 16) * 4
PAGE_UP = 2 * 8 * (16 + 24) * 4
PAGE_IN = 8 * (24 + 16) * 4


def check(pool: LoRAPool, adapter: LoRAAdapter) -> None:
    """The pool holds the adapter's weights, and zeros in the rows that it doesn't use."""
    for name, site in pool.sites.items():
        group = pool.groups[site.group]
        pages = group.table.pages(adapter.version)
        if not pages:
            assert name not in adapter.modules
            continue
        rows = [page * PAGE_ROWS + i for page in pages for i in range(PAGE_ROWS)]
        a, b = group.a[site.layer, rows], group.b[site.layer, rows]
        rank = 0
        if name in adapter.modules:
            weights = adapter.modules[name]
            rank = len(weights.a)
            assert torch.equal(a[:rank], weights.a)
            assert torch.equal(b[:rank].t(), weights.b)
        assert not a[rank:].any()
        assert not b[rank:].any()


def test_linears_share_storage_with_the_same_place_in_other_layers() -> None:
    pool = made_pool(BASE)
    assert [group.modules for group in pool.groups] == [
        ["project_in"],
        ["layers.0.q", "layers.1.q"],
        ["layers.0.up", "layers.1.up"],
    ]
    assert pool.sites["layers.1.up"] == Site(2, 1)


def test_linears_of_another_shape_have_a_group_of_their_own() -> None:
    base = made_base()
    odd = dict(base.linears) | {"layers.1.q": base.linears["layers.1.up"]}
    pool = made_pool(type(base)(**{f: getattr(base, f) for f in base.__slots__} | {"linears": odd}))
    assert ["layers.1.q"] in [group.modules for group in pool.groups]


def test_an_adapter_takes_pages_by_its_rank_in_the_groups_that_it_targets() -> None:
    pool = made_pool(BASE)
    assert pool.num_bytes == 0
    adapter = made_adapter(BASE, "a", {"layers.0.q": 3, "layers.1.q": 9})
    pool.add(adapter)
    assert [group.table.num_used for group in pool.groups] == [0, 2, 0]
    check(pool, adapter)


@pytest.mark.parametrize("rank", [1, 3, 8, 24, 48])
def test_any_rank_is_stored_whole(rank: int) -> None:
    pool = made_pool(BASE)
    adapter = made_adapter(BASE, "a", dict.fromkeys(ALL, rank))
    pool.add(adapter)
    check(pool, adapter)


def test_an_adapter_that_fills_the_budget_fits_and_one_more_page_does_not() -> None:
    pool = made_pool(BASE, max_bytes=2 * PAGE_Q)
    assert not pool.can_add(made_adapter(BASE, "b", dict.fromkeys(Q, 17)))
    pool.add(made_adapter(BASE, "a", dict.fromkeys(Q, 16)))
    assert pool.num_bytes == 2 * PAGE_Q
    assert not pool.can_add(made_adapter(BASE, "c", {"layers.0.q": 1}))


def test_removing_makes_room() -> None:
    pool = made_pool(BASE, max_bytes=2 * PAGE_Q)
    first = made_adapter(BASE, "a", dict.fromkeys(Q, 16))
    second = made_adapter(BASE, "b", Q, seed=1)
    pool.add(first)
    assert not pool.can_add(second)
    pool.remove(first.version)
    assert pool.can_add(second)
    pool.add(second)
    check(pool, second)


def test_room_that_another_group_no_longer_uses_is_given_over() -> None:
    pool = made_pool(BASE, max_bytes=4 * PAGE_Q)
    kept = made_adapter(BASE, "kept", Q, seed=1)
    gone = made_adapter(BASE, "gone", dict.fromkeys(Q, 24), seed=2)
    pool.add(gone)
    pool.add(kept)
    pool.remove(gone.version)
    wide = made_adapter(BASE, "wide", {"layers.0.up": 16, "layers.1.up": 1}, seed=3)
    assert pool.can_add(wide)
    pool.add(wide)
    assert pool.num_bytes <= 4 * PAGE_Q
    check(pool, kept)
    check(pool, wide)


def test_the_same_weights_in_a_reused_page_leave_no_trace_of_the_old_ones() -> None:
    pool = made_pool(BASE, max_bytes=PAGE_Q + PAGE_UP + PAGE_IN)
    old, new = made_adapter(BASE, "old", ALL), made_adapter(BASE, "new", {"layers.1.q": 1}, seed=1)
    pool.add(old)
    pool.remove(old.version)
    pool.add(new)
    check(pool, new)


def test_what_others_derived_from_the_pages_is_dropped_when_they_change() -> None:
    pool = made_pool(BASE)
    adapter = made_adapter(BASE, "a", Q)
    for change in (lambda: pool.add(adapter), lambda: pool.remove(adapter.version)):
        pool.derived["old"] = 1
        change()
        assert not pool.derived


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove"]),
        st.integers(0, 5),
        st.lists(st.integers(0, 20), min_size=5, max_size=5),
    ),
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_accounts_and_contents_hold_after_any_steps(
    steps: list[tuple[str, int, list[int]]],
) -> None:
    limit = 6 * (PAGE_Q + PAGE_UP + PAGE_IN)
    pool = made_pool(BASE, max_bytes=limit)
    resident: dict[int, LoRAAdapter] = {}
    for seed, (step, key, ranks) in enumerate(steps):
        if step == "remove" and key in resident:
            pool.remove(resident.pop(key).version)
        elif step == "add" and key not in resident and any(ranks):
            wanted = {m: r for m, r in zip(BASE.linears, ranks, strict=True) if r}
            adapter = made_adapter(BASE, str(key), wanted, seed=seed)
            if pool.can_add(adapter):
                pool.add(adapter)
                resident[key] = adapter
        assert pool.num_bytes <= limit
        for adapter in resident.values():
            check(pool, adapter)
    for adapter in resident.values():
        pool.remove(adapter.version)
    assert all(group.table.num_used == 0 for group in pool.groups)
    assert pool.can_add(made_adapter(BASE, "full", dict.fromkeys(ALL, 48)))
