"""Turns of batches: their order, the lease of a batch, and batches whose turns fail."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from batch_records import lines, make_batch, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from queue_support import LIMITS, eventually, make_job

from shared.errors import LeaseLost, QueueFull
from shared.protocol.jobs import JobState
from shared.store.batches import batches as batches_module
from shared.store.batches.batches import Batches, Competition, Turn, new_batch_id
from shared.store.batches.records import Batch, BatchStatus
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis, connect
from shared.store.redis.keys import Keys


@pytest.fixture
def batches(redis: Redis, keys: Keys) -> Batches:
    return Batches(redis, keys)


async def added(
    batches: Batches, tenant: str = "red", *, age_s: int = 0, weight: float = 1
) -> Batch:
    batch = make_batch(tenant, age_s=age_s, weight=weight)
    await batches.add(batch, keep_s=1000, max_tenant=999)
    return batch


async def taken(batches: Batches) -> Turn:
    turn = await batches.take_turn()
    assert turn
    return turn


async def test_a_batch_has_one_turn_at_a_time(batches: Batches) -> None:
    batch = await added(batches)
    turn = await taken(batches)
    assert (turn.batch, turn.number) == (batch.id, 1)
    assert await batches.take_turn() is None
    await batches.release(turn)
    assert await taken(batches) == Turn(batch.id, 2)


async def test_a_silent_runner_loses_its_turn(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await added(batches)
    monkeypatch.setattr(batches_module, "LEASE_MS", 300)
    first = await taken(batches)
    await batches.begin(first)
    second = await eventually(batches.take_turn)
    assert second == Turn(batch.id, 2)
    await batches.begin(second)
    for call in (batches.renew(first), batches.commit(batch.id, first.runner, lines(0))):
        with pytest.raises(LeaseLost):
            await call
    await batches.release(first)
    await batches.renew(second)


async def test_a_turn_that_no_process_begins_is_replaced(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await added(batches)
    monkeypatch.setattr(batches_module, "PROMISE_MS", 300)
    first = await taken(batches)
    assert await eventually(batches.take_turn) == Turn(batch.id, 2)
    with pytest.raises(LeaseLost):
        await batches.begin(first)
    found = await stored(batches, batch.id)
    assert found.num_deaths == 0


async def test_a_batch_waits_for_as_long_as_its_turn_says(batches: Batches) -> None:
    await added(batches, age_s=60)
    young = await added(batches)
    await batches.release(await taken(batches), wait_s=0.3)
    assert (await taken(batches)).batch == young.id
    assert await batches.take_turn() is None
    await eventually(batches.take_turn)


async def test_the_oldest_batches_of_a_tenant_come_first(batches: Batches) -> None:
    ids = [(await added(batches, age_s=age)).id for age in (10, 30, 20)]
    turns = [await taken(batches) for _ in range(2)]
    assert [turn.batch for turn in turns] == [ids[1], ids[2]]
    await batches.release(turns[0])
    assert (await taken(batches)).batch == ids[1]


async def test_a_cancelled_batch_is_due_at_once(batches: Batches) -> None:
    batch = await added(batches)
    await batches.release(await taken(batches), wait_s=1000)
    assert await batches.take_turn() is None
    await batches.cancel(batch.id)
    assert (await taken(batches)).batch == batch.id


async def test_turns_are_limited_for_a_tenant_and_the_pool(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "MAX_TURNS", 3)
    monkeypatch.setattr(batches_module, "MAX_TURNS_TENANT", 2)
    red = [await added(batches) for _ in range(3)]
    turns = [await taken(batches) for _ in range(2)]
    assert await batches.take_turn() is None
    blue = [await added(batches, "blue") for _ in range(2)]
    turns.append(await taken(batches))
    assert await batches.take_turn() is None
    assert {turn.batch for turn in turns} - {batch.id for batch in red} <= {b.id for b in blue}
    assert await batches.begin(turns[0]) == Competition(2, 2)
    assert await batches.begin(turns[2]) == Competition(2, 1)


async def test_a_tenant_has_a_limited_number_of_open_batches(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "MAX_OPEN_TENANT", 1)
    batch = await added(batches)
    with pytest.raises(QueueFull, match="batches of the tenant"):
        await added(batches)
    await added(batches, "blue")
    turn = await taken(batches)
    await ended(batches, turn)
    await added(batches, "red" if turn.batch == batch.id else "blue")


WEIGHTS = (1, 1, 2, 4)
"""Weights of the tenants `t0` to `t3`."""
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, len(WEIGHTS) - 1)),
        st.tuples(st.sampled_from(["waits", "ends"]), st.just(1)),
        st.tuples(st.just("goes on"), st.integers(1, 8)),
    ),
    max_size=20,
)
"""Steps: a tenant adds a batch, or a number of turns is given, after which their batches ..."""


class Rounds:
    """Counts the turns that other tenants get while a tenant waits."""

    def __init__(self) -> None:
        self.due: Counter[int] = Counter()
        """Batches of each tenant that wait for a turn."""
        self._turns_of_others: dict[int, Counter[int]] = {}

    def add(self, tenant: int) -> None:
        self.due[tenant] += 1
        self._turns_of_others.setdefault(tenant, Counter())

    def take(self, tenant: int) -> None:
        self.due[tenant] -= 1
        self._turns_of_others[tenant].clear()
        for other, counts in self._turns_of_others.items():
            if other != tenant and self.due[other]:
                counts[tenant] += 1
                assert counts[tenant] <= WEIGHTS[tenant] / WEIGHTS[other] + 1, (other, counts)


async def play(batches: Batches, steps: Sequence[tuple[str, int]]) -> None:
    rounds: Rounds = Rounds()
    tenants: dict[str, int] = {}
    for kind, number in steps:
        if kind == "add":
            batch = await added(batches, f"t{number}", weight=WEIGHTS[number])
            tenants[batch.id] = number
            rounds.add(number)
            continue
        for _ in range(number):
            turn = await batches.take_turn()
            assert (turn is None) == (rounds.due.total() == 0), "a due batch gets a turn"
            if turn is None:
                break
            rounds.take(tenants[turn.batch])
            if kind == "ends":
                await ended(batches, turn)
            else:
                await batches.release(turn, wait_s=1000 if kind == "waits" else 0)
            if kind == "goes on":
                rounds.add(tenants[turn.batch])


@settings(max_examples=60)
@given(steps=STEPS)
def test_no_tenant_with_work_waits_for_more_than_one_round(
    redis_url: str, steps: Sequence[tuple[str, int]]
) -> None:
    async def run() -> None:
        redis, keys = connect(redis_url), Keys(new_batch_id())
        await play(Batches(redis, keys), steps)
        async for key in redis.scan_iter(match=f"{keys.prefix}*"):
            await redis.delete(key)
        await redis.aclose()

    asyncio.run(run())


async def ended(batches: Batches, turn: Turn) -> None:
    status = BatchStatus.COMPLETED
    await batches.end(turn.batch, turn.runner, status, keep_s=9, announces=False)


async def died(batches: Batches, redis: Redis, keys: Keys) -> Turn:
    """Begin a turn whose process dies, and let its lease end."""
    turn = await taken(batches)
    await batches.begin(turn)
    await redis.delete(keys.batch_lease(turn.batch))
    await redis.zadd(keys.turning, {turn.batch: 0})
    return turn


async def test_a_batch_whose_turns_end_processes_runs_alone(
    batches: Batches, redis: Redis, keys: Keys
) -> None:
    bad, good = await added(batches, "red"), await added(batches, "blue")
    for _ in range(2):
        turns = [await died(batches, redis, keys) for _ in range(2)]
        assert {turn.batch for turn in turns} == {bad.id, good.id}
    alone = await taken(batches)
    assert await batches.take_turn() is None, "nothing runs beside it"
    await batches.begin(alone)
    await batches.release(alone)
    found = await stored(batches, alone.batch)
    assert found.num_deaths == 0, "its turn ended, so it isn't to blame"
    other = await taken(batches)
    assert {alone.batch, other.batch} == {bad.id, good.id}
    assert await batches.take_turn() is None


async def test_a_batch_that_must_run_alone_waits_for_the_others(
    batches: Batches, redis: Redis, keys: Keys
) -> None:
    bad = await added(batches)
    for _ in range(2):
        await died(batches, redis, keys)
    good = await added(batches, "blue")
    await redis.zadd(keys.turns_of("red"), {bad.id: 2**50})  # it isn't due yet
    turn = await taken(batches)
    assert turn.batch == good.id
    await redis.zadd(keys.turns_of("red"), {bad.id: 0})
    assert await batches.take_turn() is None
    await ended(batches, turn)
    assert (await taken(batches)).batch == bad.id


async def test_a_result_clears_a_batch(batches: Batches, redis: Redis, keys: Keys) -> None:
    batch = await added(batches)
    await died(batches, redis, keys)
    await batches.release(await taken(batches), failure="KeyError: x")
    turn = await taken(batches)
    await batches.begin(turn)
    found = await stored(batches, batch.id)
    assert (found.num_deaths, found.num_failures, found.failure) == (1, 1, "KeyError: x")
    await batches.commit(batch.id, turn.runner, lines(0))
    found = await stored(batches, batch.id)
    assert (found.num_deaths, found.num_failures, found.failure) == (0, 0, "")


async def test_the_jobs_of_recorded_lines_are_deleted(
    batches: Batches, queue: Queue, actor: Any, redis: Redis, keys: Keys
) -> None:
    batch = await added(batches)
    turn = await taken(batches)
    worker = await actor()
    limits = replace(LIMITS, retain_ms=10**8)
    done, running = make_job(is_preemptible=True), make_job(is_preemptible=True)
    for job in (done, running):
        await queue.enqueue(job, limits)
    claimed = {each.job.id: each for each in await worker.claim()}
    await worker.finish(claimed[done.id], JobState.DONE)
    recorded = [(0, done.id), (1, running.id), (2, None)]
    await batches.commit(batch.id, turn.runner, lines(lines=recorded))
    assert not await redis.exists(keys.job(done.id), keys.result(done.id))
    assert await redis.zcard(keys.jobs("default")) == 1
    assert await redis.exists(keys.job(running.id)), "it hasn't ended"
