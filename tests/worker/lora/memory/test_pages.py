"""The unit allocator, compared with a model that records the owner of every unit."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from worker.lora.memory.pages import Blocks, Run, Units, pages_of_rank, units_of

SIZES = (3, 4, 11)
"""Sizes of blocks. None is a multiple of another."""
BLOCKS = st.lists(st.builds(Blocks, st.integers(1, 6), st.sampled_from(SIZES)), min_size=1,
                  max_size=3)  # fmt: skip


def allocate(units: Units, *wanted: tuple[int, int]) -> list[list[Run]]:
    runs = units.allocate([Blocks(*blocks) for blocks in wanted])
    assert runs is not None
    return runs


@given(st.integers(1, 1000))
def test_a_rank_gets_as_few_pages_as_hold_it(rank: int) -> None:
    assert 8 * (pages_of_rank(rank) - 1) < rank <= 8 * pages_of_rank(rank)


@given(st.integers(1, 10**12))
def test_bytes_get_as_few_units_as_hold_them(num_bytes: int) -> None:
    assert 512 * (units_of(num_bytes) - 1) < num_bytes <= 512 * units_of(num_bytes)


def test_an_allocation_goes_into_the_smallest_free_run_that_holds_all_of_it() -> None:
    units = Units(100)
    first, _, third, _ = (allocate(units, (1, size))[0] for size in (20, 10, 12, 10))
    units.release(first + third)
    assert allocate(units, (2, 4), (1, 3)) == [[Run(30, 8)], [Run(38, 3)]]
    assert allocate(units, (1, 15)) == [[Run(0, 15)]]


def test_blocks_are_spread_over_free_runs_the_largest_first() -> None:
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


class Accounts(RuleBasedStateMachine):
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


TestAccounts = Accounts.TestCase
TestAccounts.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
