"""Tenants take turns to compile, and one tenant's compilations delay no other tenant for long."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from worker.text.tenant_turns import FORGIVEN_PER_S, MAX_WAITING, CpuTurns

MAX_RUNNING = 4

TENANTS = st.sampled_from("abcdef")


class TurnsMachine(RuleBasedStateMachine):
    """Compares the queue with lists of what waits and what runs."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: CpuTurns[int] = CpuTurns(MAX_RUNNING)
        self.now_s = 0.0
        self.num_added = 0
        self.waiting: list[tuple[str, int]] = []
        self.running: list[str] = []

    @rule(tenant=TENANTS)
    def add(self, tenant: str) -> None:
        self.turns.add(tenant, self.num_added)
        self.waiting.append((tenant, self.num_added))
        self.num_added += 1

    @rule()
    def begin(self) -> None:
        able = {tenant for tenant, _ in self.waiting if tenant not in self.running}
        found = self.turns.next(self.now_s)
        if not able or len(self.running) == MAX_RUNNING:
            assert found is None
            return
        assert found is not None
        tenant, item = found
        least_s = min(self.turns.spent_s(each, self.now_s) for each in able)
        assert tenant in able
        assert self.turns.spent_s(tenant, self.now_s) == least_s
        assert item == min(number for each, number in self.waiting if each == tenant)
        self.waiting.remove(found)
        self.running.append(tenant)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), cpu_s=st.floats(0, 2))
    def end(self, data: st.DataObject, cpu_s: float) -> None:
        tenant = data.draw(st.sampled_from(self.running))
        before_s = self.turns.spent_s(tenant, self.now_s)
        self.running.remove(tenant)
        self.turns.end(tenant, cpu_s, self.now_s)
        assert self.turns.spent_s(tenant, self.now_s) == pytest.approx(before_s + cpu_s)

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        before_s = {tenant: self.turns.spent_s(tenant, self.now_s) for tenant in "abcdef"}
        self.now_s += seconds
        for tenant, spent_s in before_s.items():
            left_s = max(0.0, spent_s - FORGIVEN_PER_S * seconds)
            assert self.turns.spent_s(tenant, self.now_s) == pytest.approx(left_s, abs=1e-6)

    @invariant()
    def no_tenant_runs_twice(self) -> None:
        assert len(set(self.running)) == len(self.running) <= MAX_RUNNING


test_turns_are_fair_in_any_order_of_events = TurnsMachine.TestCase


def test_the_number_of_a_tenants_waiting_compilations_is_limited() -> None:
    turns: CpuTurns[int] = CpuTurns(MAX_RUNNING)
    for number in range(MAX_WAITING):
        assert turns.has_room("a")
        turns.add("a", number)
    assert not turns.has_room("a")
    assert turns.has_room("b")
