"""Policies of loads, memory, yielding and replicas."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worker_support import until

from shared.protocol.ids import AdapterVersion
from shared.protocol.queue_replies import ReplicaStanding
from worker.adapters.load_policy import MAX_LOADING, can_prefetch, max_cold
from worker.adapters.loader_threads import CROWDED_SHARE, SHARE, share_of_core
from worker.adapters.memory_budgets import AdapterBudgets
from worker.adapters.memory_queue import MemoryQueue
from worker.adapters.replica_policy import KEPT_STEALS, Replica
from worker.adapters.residency import Change, Residency
from worker.adapters.yield_policy import may_be_free, version_to_yield, versions_in_use
from worker.text.prompt_style import BASE_STYLE

BASE, A, B, C, D = (AdapterVersion(f"{name}@1") for name in ("base", *"abcd"))


@pytest.mark.parametrize(
    ("num_loading", "num_waiting", "expected"),
    [(0, 0, 2), (1, 0, 1), (2, 0, 0), (2, 1, 1), (3, 1, 0), (1, 1, 2), (2, 2, 0), (4, 2, 0)],
)
def test_a_version_that_waits_for_memory_lets_another_one_load(
    num_loading: int, num_waiting: int, expected: int
) -> None:
    assert max_cold(num_loading=num_loading, num_waiting=num_waiting) == expected


def test_one_version_is_prefetched_at_a_time_and_after_loads_for_claimed_jobs() -> None:
    assert can_prefetch(num_loading=0, num_waiting=0, num_prefetching=0)
    assert not can_prefetch(num_loading=0, num_waiting=0, num_prefetching=1)
    assert can_prefetch(num_loading=MAX_LOADING - 1, num_waiting=0, num_prefetching=0)
    assert not can_prefetch(num_loading=MAX_LOADING, num_waiting=0, num_prefetching=0)
    assert not can_prefetch(num_loading=1, num_waiting=1, num_prefetching=0)


def test_a_busy_engine_keeps_most_of_a_core_unless_jobs_wait_for_several_loads() -> None:
    assert share_of_core(1, is_engine_busy=True) == SHARE
    assert share_of_core(2, is_engine_busy=True) == CROWDED_SHARE > SHARE
    assert share_of_core(1, is_engine_busy=False) == share_of_core(2, is_engine_busy=False) == 1.0


BYTES = st.integers(0, 1 << 40)


def test_a_gpu_has_its_own_memory_and_a_cpu_one_pool_of_both_and_no_copies() -> None:
    gpu = AdapterBudgets(device=30, host=50, is_one_memory=False)
    assert (gpu.pool, gpu.copies) == gpu.used(30, 50) == (30, 50)
    cpu = AdapterBudgets(device=30, host=50, is_one_memory=True)
    assert (cpu.pool, cpu.copies) == (80, 0)
    assert cpu.used(30, 0) == (30, 0)
    assert cpu.used(70, 0) == (30, 40)


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


def test_each_further_shortage_and_no_repeated_one_makes_a_further_version_in_use_yield() -> None:
    assert versions_in_use({A: 3, B: 0, C: 1}, wanted=C) == {A}
    assert version_to_yield({A: 3, B: 2}, {A, B}, {B}, is_first_shortage=True) == A
    assert version_to_yield({A: 3, B: 2}, {A, B}, {A, B}, is_first_shortage=True) is None
    assert version_to_yield({A: 3, B: 1}, {A, B}, {B}, is_first_shortage=False) is None
    assert version_to_yield({A: 3}, {A}, {B}, is_first_shortage=False) == A
    assert may_be_free((), {A: 1})


REPORTS = st.lists(st.tuples(st.integers(0, 9999), st.sampled_from(ReplicaStanding)), max_size=40)


@settings(max_examples=500)
@given(REPORTS, st.integers(1, 1000))
def test_a_replica_is_due_once_it_was_surplus_for_long_enough_unless_it_is_the_last_or_gone(
    reports: list[tuple[int, ReplicaStanding]], steal_ms: int
) -> None:
    replica, now_ms, surplus_ms = Replica(), 0, None
    for passed_ms, standing in reports:
        now_ms += passed_ms
        changed = replica.after(standing, now_ms)
        assert (changed is None) == (standing in (ReplicaStanding.SOLE, ReplicaStanding.GONE))
        replica = changed or Replica()
        is_surplus = standing is ReplicaStanding.SURPLUS
        surplus_ms = (now_ms if surplus_ms is None else surplus_ms) if is_surplus else None
        is_due = surplus_ms is not None and now_ms - surplus_ms >= KEPT_STEALS * steal_ms
        assert replica.is_due(now_ms, steal_ms) == is_due


LONG_S, NOT_S = 60.0, 0.0


class Memory:
    """Device memory for a few adapters, all of which are in use."""

    def __init__(self, *in_use: AdapterVersion) -> None:
        self.jobs = dict.fromkeys(in_use, 1)
        self.num_free = 0
        self.num_waits = 0
        self.given: list[AdapterVersion] = []
        self.residency = Residency(BASE, BASE_STYLE)
        self.residency.subscribe(Change.LOADS, self._count_wait)
        self.queue = MemoryQueue(self.residency, num_jobs=lambda: self.jobs)

    def end(self, version: AdapterVersion) -> None:
        """End the last job of a version."""
        del self.jobs[version]
        self.num_free += 1
        self.residency.job_finished(self.jobs)

    async def place(self, version: AdapterVersion, patience_s: float = LONG_S) -> bool:
        """Return whether `version` got memory."""
        return await self.queue.place(version, self._placer(version), patience_s) is not None

    def _placer(self, version: AdapterVersion) -> Callable[[], Awaitable[bool | None]]:
        async def place() -> bool | None:
            await asyncio.sleep(0)
            if not self.num_free:
                return None
            self.num_free -= 1
            self.given.append(version)
            return True

        return place

    def _count_wait(self) -> None:
        self.num_waits += 1


async def test_a_version_that_asks_when_memory_is_freed_comes_after_one_that_waits() -> None:
    memory = Memory(A, B)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(memory.place(C))
        await until(lambda: memory.num_waits == 1)
        newcomer = tasks.create_task(memory.place(D))
        await asyncio.sleep(0)  # the newcomer would be asking by now
        memory.end(A)
        await until(waiting.done)
        assert not newcomer.done()
        memory.end(B)
    assert memory.given == [C, D]


async def test_memory_that_is_freed_while_a_version_asks_is_not_missed() -> None:
    memory = Memory(A)

    async def place() -> bool | None:
        if not memory.jobs:
            return True
        memory.end(A)  # after it was seen in use
        return None

    async with asyncio.timeout(60):
        assert await memory.queue.place(C, place, LONG_S)


async def test_a_version_without_patience_lets_the_next_one_ask() -> None:
    memory = Memory(A)
    assert not await memory.place(C, NOT_S)
    assert not memory.residency.has_memory_queue
    waiting = asyncio.create_task(memory.place(D))
    await until(lambda: memory.num_waits == 2)
    memory.num_free = 1
    memory.residency.memory_freed()
    assert await waiting


@pytest.mark.parametrize("has_job", [True, False])
async def test_an_adapter_that_became_resident_meanwhile_frees_memory_too(has_job: bool) -> None:
    """At once if its job was cancelled meanwhile, or else when its job ends."""
    memory = Memory(A)
    waiting = asyncio.create_task(memory.place(C))
    await until(lambda: memory.num_waits == 1)
    if has_job:
        memory.jobs[B] = 1  # it had its memory before
    else:
        memory.num_free = 1
    memory.residency.placing(B)
    memory.residency.became_resident(B)
    if has_job:
        await until(lambda: memory.num_waits == 3)  # the load itself is one change
        memory.end(B)
    async with asyncio.timeout(60):
        assert await waiting
