"""The adapter pool: units, pages by rank, accounting, and contents that never move."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from lora import check, empty_pool, random_adapter, site_of, small_base

from shared.errors import SettingsError
from worker.lora.checkpoint.adapter import LoRAAdapter
from worker.lora.memory.layout import AdapterImage, Site
from worker.lora.memory.pages import Blocks, Run, Units, pages_of_rank, units_of
from worker.lora.memory.pool import Reserved

BASE = small_base()
Q = {"layers.0.q": 8, "layers.1.q": 8}
ALL = dict.fromkeys(BASE.linears, 8)
PAGE_Q = 2 * 8 * (16 + 16) * 4
PAGE_UP = 2 * 1536  # 8 * (16 + 24) * 4 = 1280, rounded up to whole units
PAGE_IN = 1536


def test_linears_of_one_shape_at_the_same_place_in_each_layer_are_a_group() -> None:
    pool = empty_pool(BASE)
    assert [group.modules for group in pool.groups] == [
        ("project_in",),
        ("layers.0.q", "layers.1.q"),
        ("layers.0.up", "layers.1.up"),
    ]
    assert pool.sites["layers.1.up"] == Site(2, 1)
    odd = {**BASE.linears, "layers.1.q": BASE.linears["layers.1.up"]}
    pool = empty_pool(replace(BASE, linears=odd))
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
    with pytest.raises(SettingsError, match=r"--adapter-memory-mb: \d+ MiB can't be allocated"):
        empty_pool(BASE, max_bytes=1 << 60)


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
    pool.remove(adapter.version)
    assert pool.num_removals == 1
    pool.remove(pool.reserve(pool.layout.image(adapter)).version)
    assert pool.num_removals == 1, "no batch can refer to pages that were never written"


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


SIZES = (3, 4, 11)
"""Sizes of blocks. None is a multiple of another."""
BLOCKS = st.lists(st.builds(Blocks, st.integers(1, 6), st.sampled_from(SIZES)), min_size=1,
                  max_size=3)  # fmt: skip


def allocate(units: Units, *wanted: tuple[int, int]) -> list[list[Run]]:
    runs = units.allocate([Blocks(*blocks) for blocks in wanted])
    assert runs is not None
    return runs


@given(st.integers(1, 10**12))
def test_a_rank_and_bytes_get_as_few_pages_and_units_as_hold_them(number: int) -> None:
    assert 8 * (pages_of_rank(number) - 1) < number <= 8 * pages_of_rank(number)
    assert 512 * (units_of(number) - 1) < number <= 512 * units_of(number)


def test_blocks_go_into_the_smallest_run_that_holds_all_or_else_into_the_largest_ones() -> None:
    units = Units(100)
    first, _, third, _ = (allocate(units, (1, size))[0] for size in (20, 10, 12, 10))
    units.release(first + third)
    assert allocate(units, (2, 4), (1, 3)) == [[Run(30, 8)], [Run(38, 3)]]
    assert allocate(units, (1, 15)) == [[Run(0, 15)]]
    units = Units(25)
    first, _, third, _ = (allocate(units, (1, size))[0] for size in (11, 1, 10, 3))
    units.release(first + third)
    assert units.allocate([Blocks(3, 7)]) is None
    assert allocate(units, (3, 3), (1, 11)) == [[Run(12, 9)], [Run(0, 11)]]


def test_fragmentation_by_a_thousand_adapters_wastes_little_memory() -> None:
    # The pages of SmolLM2-135M (q, k, v, o, gate, up, down), and memory for 16 adapters of rank 16.
    sizes, num_layers = (36, 24, 24, 36, 66, 66, 66), 30
    units = Units(16 * 2 * num_layers * sum(sizes))
    random, resident = Random(0), list[list[list[Run]]]()
    for _ in range(1000):
        modules = random.choice([range(7), (0, 2), (0, 1, 2, 3), (4, 5, 6), (1,), (2, 6)])
        num_pages = random.choice([1, 1, 2, 2, 3, 4, 8])
        wanted = [Blocks(num_layers * num_pages, sizes[module]) for module in modules]
        while (runs := units.allocate(wanted)) is None:
            unused = units.num_units - units.num_used - sum(n * size for n, size in wanted)
            assert unused <= 0.05 * units.num_units
            victim = resident.pop(random.randrange(-(-len(resident) // 2)))
            units.release(run for part in victim for run in part)
        resident.append(runs)


class UnitAccounts(RuleBasedStateMachine):
    """Owners allocate and free blocks in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.units = Units(97)
        self.owners: dict[int, tuple[list[Blocks], list[list[Run]]]] = {}
        self.num_made = 0

    @rule(wanted=BLOCKS)
    def add(self, wanted: list[Blocks]) -> None:
        before = self.units.num_used
        runs = self.units.allocate(wanted)
        if runs is None:
            assert self.units.num_used == before
            assert before > 0 or sum(n * size for n, size in wanted) > 97
            return
        self.num_made += 1
        self.owners[self.num_made] = wanted, runs

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        _, runs = self.owners.pop(data.draw(st.sampled_from(sorted(self.owners))))
        self.units.release(run for part in runs for run in part)

    @invariant()
    def every_block_is_contiguous(self) -> None:
        for wanted, runs in self.owners.values():
            for blocks, part in zip(wanted, runs, strict=True):
                assert sum(run.units for run in part) == blocks.number * blocks.units
                assert all(run.units % blocks.units == 0 for run in part)

    @invariant()
    def no_two_overlap_and_the_accounts_balance(self) -> None:
        taken = [
            unit
            for _, runs in self.owners.values()
            for part in runs
            for run in part
            for unit in range(run.start, run.start + run.units)
        ]
        assert len(set(taken)) == len(taken) == self.units.num_used
        assert all(0 <= unit < 97 for unit in taken)

    @invariant()
    def all_free_units_can_be_allocated_one_by_one(self) -> None:
        num_free = 97 - self.units.num_used
        assert self.units.allocate([Blocks(num_free + 1, 1)]) is None
        if num_free:
            runs = self.units.allocate([Blocks(num_free, 1)])
            self.units.release(runs[0])


TestUnitAccounts = UnitAccounts.TestCase
TestUnitAccounts.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
