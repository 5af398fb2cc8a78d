from hypothesis import given
from hypothesis import strategies as st

from worker.adapters.memory_budgets import AdapterBudgets

BYTES = st.integers(0, 1 << 40)


def test_a_gpu_has_its_own_memory_and_copies_wait_in_the_hosts() -> None:
    budgets = AdapterBudgets(device=30, host=50, is_one_memory=False)
    assert (budgets.pool, budgets.copies) == (30, 50)
    assert budgets.used(20, 40) == (20, 40)


def test_a_cpu_has_one_pool_of_both_and_no_copies() -> None:
    budgets = AdapterBudgets(device=30, host=50, is_one_memory=True)
    assert (budgets.pool, budgets.copies) == (80, 0)
    assert budgets.used(30, 0) == (30, 0)
    assert budgets.used(70, 0) == (30, 40)


@given(BYTES, BYTES, BYTES, st.booleans())
def test_neither_budget_is_exceeded_by_what_they_allow(
    device: int, host: int, used: int, is_one_memory: bool
) -> None:
    budgets = AdapterBudgets(device=device, host=host, is_one_memory=is_one_memory)
    of_pool, of_copies = min(used, budgets.pool), min(used, budgets.copies)
    on_device, in_host = budgets.used(of_pool, of_copies)
    assert on_device <= device
    assert in_host <= host
    assert on_device + in_host == of_pool + of_copies
