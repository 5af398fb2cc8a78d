"""Page accounting, by a model that keeps the owner written on every page."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from worker.lora.pages import Move, PageTable, pages_of_rank


def table_of(capacity: int) -> PageTable:
    table = PageTable()
    table.grow(capacity)
    return table


@given(st.integers(1, 1000))
def test_pages_of_a_rank_hold_it_and_no_page_is_idle(rank: int) -> None:
    assert 8 * (pages_of_rank(rank) - 1) < rank <= 8 * pages_of_rank(rank)


def test_pages_are_side_by_side_where_there_is_such_a_gap() -> None:
    table = table_of(6)
    for owner, size in (("a", 1), ("b", 1), ("c", 1), ("d", 2)):
        table.allocate(owner, size)
    table.release("a")
    table.release("c")
    assert table.allocate("e", 1) == (0,)
    table.release("d")
    assert table.allocate("f", 3) == (2, 3, 4)


def test_pages_are_taken_one_by_one_where_there_is_no_such_gap() -> None:
    table = table_of(4)
    for owner in "abcd":
        table.allocate(owner, 1)
    table.release("a")
    table.release("c")
    assert table.can_allocate(2)
    assert not table.can_allocate(3)
    assert table.allocate("e", 2) == (0, 2)


class Pages(RuleBasedStateMachine):
    """`written` is what the pages hold: (owner, index among the owner's pages)."""

    def __init__(self) -> None:
        super().__init__()
        self.table = PageTable()
        self.written: dict[int, tuple[str, int]] = {}
        self.sizes: dict[str, int] = {}
        self.num_made = 0

    def carry_out(self, moves: list[Move]) -> None:
        held = {target: self.written.get(source) for source, target in moves}
        assert len(held) == len(moves), "two moves to one page"
        self.written |= {page: mark for page, mark in held.items() if mark is not None}

    @rule(size=st.integers(1, 4))
    def add(self, size: int) -> None:
        self.num_made += 1
        owner = f"o{self.num_made}"
        if not self.table.can_allocate(size):
            self.table.grow(self.table.num_used + size)
        for index, page in enumerate(self.table.allocate(owner, size)):
            self.written[page] = (owner, index)
        self.sizes[owner] = size

    @precondition(lambda self: self.sizes)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from(sorted(self.sizes)))
        self.table.release(owner)
        del self.sizes[owner]

    @rule()
    def shrink(self) -> None:
        self.carry_out(self.table.shrink())
        assert self.table.capacity == self.table.num_used

    @rule(extra=st.integers(0, 3))
    def grow(self, extra: int) -> None:
        capacity = self.table.capacity + extra
        self.table.grow(capacity)
        assert self.table.capacity == capacity

    @invariant()
    def every_page_holds_what_its_owner_wrote(self) -> None:
        for owner, size in self.sizes.items():
            pages = self.table.pages(owner)
            assert [self.written[page] for page in pages] == [(owner, i) for i in range(size)]

    @invariant()
    def the_accounts_balance(self) -> None:
        owned = [page for owner in self.sizes for page in self.table.pages(owner)]
        assert len(set(owned)) == len(owned) == self.table.num_used
        assert all(0 <= page < self.table.capacity for page in owned)
        free = self.table.capacity - self.table.num_used
        assert self.table.can_allocate(free)
        assert not self.table.can_allocate(free + 1)


TestPages = Pages.TestCase
TestPages.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
