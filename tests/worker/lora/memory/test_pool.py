"""The adapter pool: pages by rank, memory accounting, and contents that never move."""

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from lora import CPU, check, empty_pool, random_adapter, site_of, small_base

from shared.errors import SettingsError
from worker.lora.checkpoint.adapter import LoRAAdapter
from worker.lora.memory.layout import AdapterImage, Site
from worker.lora.memory.pool import LoRAPool, Reserved

BASE = small_base()
Q = {"layers.0.q": 8, "layers.1.q": 8}
ALL = dict.fromkeys(BASE.linears, 8)
PAGE_Q = 2 * 8 * (16 + 16) * 4
PAGE_UP = 2 * 1536  # 8 * (16 + 24) * 4 = 1280, rounded up to whole units
PAGE_IN = 1536


def test_linears_at_the_same_place_in_each_layer_are_a_group() -> None:
    pool = empty_pool(BASE)
    assert [group.modules for group in pool.groups] == [
        ("project_in",),
        ("layers.0.q", "layers.1.q"),
        ("layers.0.up", "layers.1.up"),
    ]
    assert pool.sites["layers.1.up"] == Site(2, 1)


def test_linears_of_another_shape_form_a_separate_group() -> None:
    base = small_base()
    odd = dict(base.linears) | {"layers.1.q": base.linears["layers.1.up"]}
    pool = empty_pool(
        type(base)(**{f: getattr(base, f) for f in base.__slots__} | {"linears": odd})
    )
    assert ("layers.1.q",) in [group.modules for group in pool.groups]


def test_an_adapter_has_pages_for_its_rank_in_the_groups_that_it_targets() -> None:
    pool = empty_pool(BASE)
    assert pool.num_bytes == 0
    adapter = random_adapter(BASE, "a", {"layers.0.q": 3, "layers.1.q": 9})
    assert pool.add(adapter)
    assert [pool.pages(adapter.version, group).shape for group in range(3)] == [
        (1, 0),
        (2, 2),
        (2, 0),
    ]
    assert pool.num_bytes == pool.bytes_of(adapter.version) == 2 * PAGE_Q
    check(pool, adapter)


def test_an_adapter_that_fills_the_budget_fits_and_one_more_page_does_not() -> None:
    pool = empty_pool(BASE, max_bytes=2 * PAGE_Q)
    assert not pool.add(random_adapter(BASE, "b", dict.fromkeys(Q, 17)))
    assert pool.num_bytes == 0
    assert pool.add(random_adapter(BASE, "a", dict.fromkeys(Q, 16)))
    assert pool.num_bytes == pool.max_bytes == 2 * PAGE_Q
    assert not pool.add(random_adapter(BASE, "c", {"layers.0.q": 1}))


def test_memory_freed_by_one_module_can_be_used_by_another() -> None:
    pool = empty_pool(BASE, max_bytes=PAGE_Q + 3 * PAGE_Q)
    kept = random_adapter(BASE, "kept", Q, seed=1)
    gone = random_adapter(BASE, "gone", dict.fromkeys(Q, 24), seed=2)
    wide = random_adapter(BASE, "wide", {"layers.0.up": 16, "layers.1.up": 1}, seed=3)
    assert pool.add(gone)
    assert pool.add(kept)
    assert not pool.add(wide)
    pool.remove(gone.version)
    assert pool.add(wide)
    assert pool.num_bytes == PAGE_Q + 2 * PAGE_UP
    check(pool, kept)
    check(pool, wide)


def test_a_resident_adapter_does_not_move_when_others_are_added_and_removed() -> None:
    pool = empty_pool(BASE)
    first, kept = random_adapter(BASE, "first", ALL), random_adapter(BASE, "kept", ALL, seed=1)
    assert pool.add(first)
    assert pool.add(kept)
    before = [pool.pages(kept.version, group).copy() for group in range(3)]
    addresses = [(site_of(pool, name).a.data_ptr()) for name in pool.sites]
    pool.remove(first.version)
    for seed in range(2, 9):
        assert pool.add(random_adapter(BASE, "more", dict.fromkeys(Q, 40), seed=seed))
    for group, pages in enumerate(before):
        assert (pool.pages(kept.version, group) == pages).all()
    assert [(site_of(pool, name).a.data_ptr()) for name in pool.sites] == addresses
    check(pool, kept)


def test_removals_of_resident_adapters_are_counted() -> None:
    pool = empty_pool(BASE)
    adapter = random_adapter(BASE, "a", Q)
    assert pool.add(adapter)
    assert pool.num_removals == 0
    pool.remove(adapter.version)
    assert pool.num_removals == 1
    reserved = pool.reserve(pool.layout.image(adapter))
    pool.remove(reserved.version)
    assert pool.num_removals == 1, "no batch can refer to pages that were never written"


def test_reserved_memory_counts_and_can_be_freed_unused() -> None:
    pool = empty_pool(BASE, max_bytes=PAGE_Q)
    reserved = pool.reserve(pool.layout.image(random_adapter(BASE, "a", Q)))
    assert reserved is not None
    assert pool.num_bytes == PAGE_Q
    assert not pool.add(random_adapter(BASE, "b", Q))
    pool.remove(reserved.version)
    assert pool.num_bytes == 0


def test_a_budget_that_cannot_be_allocated_names_its_setting() -> None:
    with pytest.raises(SettingsError, match=r"--adapter-memory-mb: \d+ MiB can't be allocated"):
        LoRAPool(BASE, max_bytes=1 << 60, dtype=torch.float32, device=CPU)


RANKS = st.lists(st.integers(0, 20), min_size=5, max_size=5).filter(any)
LIMIT = 6 * (PAGE_Q + PAGE_UP + PAGE_IN)


class Accounts(RuleBasedStateMachine):
    """Adapters are reserved, written, activated and removed in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = empty_pool(BASE, max_bytes=LIMIT)
        self.reserved: dict[str, tuple[LoRAAdapter, AdapterImage, Reserved]] = {}
        self.resident: dict[str, LoRAAdapter] = {}
        self.num_made = 0

    @rule(ranks=RANKS)
    def reserve(self, ranks: list[int]) -> None:
        self.num_made += 1
        wanted = {m: r for m, r in zip(BASE.linears, ranks, strict=True) if r}
        adapter = random_adapter(BASE, "a", wanted, seed=self.num_made)
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
    def the_budget_is_not_exceeded_and_the_accounts_balance(self) -> None:
        adapters = [*self.resident.values(), *(adapter for adapter, _, _ in self.reserved.values())]
        used = sum(self.pool.bytes_of(adapter.version) for adapter in adapters)
        assert used == self.pool.num_bytes <= LIMIT

    @invariant()
    def every_resident_adapter_is_complete(self) -> None:
        for adapter in self.resident.values():
            check(self.pool, adapter)


TestAccounts = Accounts.TestCase
TestAccounts.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)
