import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from lora import CPU, check, made_adapter, made_base, made_pool, site_of

from shared.errors import SettingsError
from worker.lora.checkpoint.adapter import LoRAAdapter
from worker.lora.memory.layout import AdapterImage, Site
from worker.lora.memory.pool import LoRAPool, Reserved

BASE = made_base()
Q = {"layers.0.q": 8, "layers.1.q": 8}
UP = {"layers.0.up": 8, "layers.1.up": 8}
ALL = dict.fromkeys(BASE.linears, 8)
PAGE_Q = 2 * 8 * (16 + 16) * 4
PAGE_UP = 2 * 1536  # 8 * (16 + 24) * 4 = 1280 is no multiple of the unit
PAGE_IN = 1536


def test_linears_at_the_same_place_in_each_layer_are_a_group() -> None:
    pool = made_pool(BASE)
    assert [group.modules for group in pool.groups] == [
        ("project_in",),
        ("layers.0.q", "layers.1.q"),
        ("layers.0.up", "layers.1.up"),
    ]
    assert pool.sites["layers.1.up"] == Site(2, 1)


def test_linears_of_another_shape_have_a_group_of_their_own() -> None:
    base = made_base()
    odd = dict(base.linears) | {"layers.1.q": base.linears["layers.1.up"]}
    pool = made_pool(type(base)(**{f: getattr(base, f) for f in base.__slots__} | {"linears": odd}))
    assert ("layers.1.q",) in [group.modules for group in pool.groups]


def test_an_adapter_takes_pages_by_its_rank_in_the_groups_that_it_targets() -> None:
    pool = made_pool(BASE)
    assert pool.num_bytes == 0
    adapter = made_adapter(BASE, "a", {"layers.0.q": 3, "layers.1.q": 9})
    assert pool.add(adapter)
    assert [pool.pages(adapter.version, group).shape for group in range(3)] == [
        (1, 0),
        (2, 2),
        (2, 0),
    ]
    assert pool.num_bytes == pool.bytes_of(adapter.version) == 2 * PAGE_Q
    check(pool, adapter)


@pytest.mark.parametrize("rank", [1, 3, 8, 24, 48])
def test_any_rank_is_stored_whole(rank: int) -> None:
    pool = made_pool(BASE)
    adapter = made_adapter(BASE, "a", dict.fromkeys(ALL, rank))
    assert pool.add(adapter)
    check(pool, adapter)


def test_an_adapter_that_fills_the_budget_fits_and_one_more_page_does_not() -> None:
    pool = made_pool(BASE, max_bytes=2 * PAGE_Q)
    assert not pool.add(made_adapter(BASE, "b", dict.fromkeys(Q, 17)))
    assert pool.num_bytes == 0
    assert pool.add(made_adapter(BASE, "a", dict.fromkeys(Q, 16)))
    assert pool.num_bytes == pool.max_bytes == 2 * PAGE_Q
    assert not pool.add(made_adapter(BASE, "c", {"layers.0.q": 1}))


def test_memory_after_unload_returns() -> None:
    pool = made_pool(BASE, max_bytes=PAGE_IN + PAGE_Q + PAGE_UP)
    for seed in range(100):
        adapter = made_adapter(BASE, "a", ALL, seed=seed)
        assert pool.add(adapter)
        check(pool, adapter)
        pool.remove(adapter.version)
        assert pool.num_bytes == 0


def test_memory_that_one_module_no_longer_uses_is_given_to_another() -> None:
    pool = made_pool(BASE, max_bytes=PAGE_Q + 3 * PAGE_Q)
    kept = made_adapter(BASE, "kept", Q, seed=1)
    gone = made_adapter(BASE, "gone", dict.fromkeys(Q, 24), seed=2)
    wide = made_adapter(BASE, "wide", {"layers.0.up": 16, "layers.1.up": 1}, seed=3)
    assert pool.add(gone)
    assert pool.add(kept)
    assert not pool.add(wide)
    pool.remove(gone.version)
    assert pool.add(wide)
    assert pool.num_bytes == PAGE_Q + 2 * PAGE_UP
    check(pool, kept)
    check(pool, wide)


def test_a_page_that_is_used_again_has_no_trace_of_its_last_owner() -> None:
    pool = made_pool(BASE, max_bytes=PAGE_Q + PAGE_UP + PAGE_IN)
    old, new = made_adapter(BASE, "old", ALL), made_adapter(BASE, "new", {"layers.1.q": 1}, seed=1)
    assert pool.add(old)
    pool.remove(old.version)
    assert pool.add(new)
    check(pool, new)


def test_nothing_of_a_resident_adapter_moves_when_others_come_and_go() -> None:
    pool = made_pool(BASE)
    first, kept = made_adapter(BASE, "first", ALL), made_adapter(BASE, "kept", ALL, seed=1)
    assert pool.add(first)
    assert pool.add(kept)
    before = [pool.pages(kept.version, group).copy() for group in range(3)]
    addresses = [(site_of(pool, name).a.data_ptr()) for name in pool.sites]
    pool.remove(first.version)
    for seed in range(2, 9):
        assert pool.add(made_adapter(BASE, "more", dict.fromkeys(Q, 40), seed=seed))
    for group, pages in enumerate(before):
        assert (pool.pages(kept.version, group) == pages).all()
    assert [(site_of(pool, name).a.data_ptr()) for name in pool.sites] == addresses
    check(pool, kept)


def test_what_others_derived_from_pages_is_kept_until_some_are_given_up() -> None:
    pool = made_pool(BASE)
    adapter = made_adapter(BASE, "a", Q)
    pool.derived["old"] = 1
    assert pool.add(adapter)
    assert pool.derived
    pool.remove(adapter.version)
    assert not pool.derived


def test_memory_that_is_reserved_counts_and_can_be_given_back_unused() -> None:
    pool = made_pool(BASE, max_bytes=PAGE_Q)
    reserved = pool.reserve(pool.layout.image(made_adapter(BASE, "a", Q)))
    assert reserved is not None
    assert pool.num_bytes == PAGE_Q
    assert not pool.add(made_adapter(BASE, "b", Q))
    pool.remove(reserved.version)
    assert pool.num_bytes == 0


def test_a_budget_that_cannot_be_allocated_names_its_setting() -> None:
    with pytest.raises(SettingsError, match=r"--adapter-memory-mb: \d+ MiB can't be allocated"):
        LoRAPool(BASE, max_bytes=1 << 60, dtype=torch.float32, device=CPU)


RANKS = st.lists(st.integers(0, 20), min_size=5, max_size=5).filter(any)
LIMIT = 6 * (PAGE_Q + PAGE_UP + PAGE_IN)


class Accounts(RuleBasedStateMachine):
    """Adapters are reserved, written, activated and given up in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = made_pool(BASE, max_bytes=LIMIT)
        self.reserved: dict[str, tuple[LoRAAdapter, AdapterImage, Reserved]] = {}
        self.resident: dict[str, LoRAAdapter] = {}
        self.num_made = 0

    @rule(ranks=RANKS)
    def reserve(self, ranks: list[int]) -> None:
        self.num_made += 1
        wanted = {m: r for m, r in zip(BASE.linears, ranks, strict=True) if r}
        adapter = made_adapter(BASE, "a", wanted, seed=self.num_made)
        image = self.pool.layout.image(adapter)
        if (reserved := self.pool.reserve(image)) is not None:
            self.reserved[adapter.version] = adapter, image, reserved
        else:
            assert self.pool.num_bytes > 0 or image.num_bytes > LIMIT

    @precondition(lambda self: self.reserved)
    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.reserved)))
        adapter, image, reserved = self.reserved.pop(key)
        self.pool.write(reserved, image)
        self.pool.activate(reserved)
        self.resident[key] = adapter

    @precondition(lambda self: self.reserved or self.resident)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted({*self.reserved, *self.resident})))
        adapter = self.resident.pop(key, None) or self.reserved.pop(key)[0]
        self.pool.remove(adapter.version)

    @invariant()
    def the_budget_is_kept_and_the_accounts_balance(self) -> None:
        adapters = [*self.resident.values(), *(adapter for adapter, _, _ in self.reserved.values())]
        used = sum(self.pool.bytes_of(adapter.version) for adapter in adapters)
        assert used == self.pool.num_bytes <= LIMIT

    @invariant()
    def every_resident_adapter_is_whole(self) -> None:
        for adapter in self.resident.values():
            check(self.pool, adapter)


TestAccounts = Accounts.TestCase
TestAccounts.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)


@settings(max_examples=20)
@given(st.lists(RANKS, min_size=1, max_size=8))
def test_once_all_are_gone_the_whole_budget_is_free(found: list[list[int]]) -> None:
    pool = made_pool(BASE, max_bytes=LIMIT)
    added = []
    for seed, ranks in enumerate(found):
        wanted = {m: r for m, r in zip(BASE.linears, ranks, strict=True) if r}
        adapter = made_adapter(BASE, "a", wanted, seed=seed)
        if pool.add(adapter):
            added.append(adapter)
    for adapter in added:
        pool.remove(adapter.version)
    assert pool.add(made_adapter(BASE, "full", dict.fromkeys(ALL, 48)))
    assert pool.num_bytes == LIMIT
