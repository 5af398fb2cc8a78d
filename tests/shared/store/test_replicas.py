"""How many workers hold an adapter: more of them by backlog, one at a time, and fewer again."""

from collections.abc import Awaitable, Callable

import pytest
import redis as sync_redis
from hypothesis import given
from hypothesis import strategies as st
from queue_support import INFO, Actor

from shared.errors import LeaseLost
from shared.protocol.jobs import Job, JobState
from shared.store.connection import Redis
from shared.store.keys import Keys
from shared.store.queue import Queue
from shared.store.queue_replies import Copy
from shared.store.scripts import read_script_file

STEAL_MS = 3000
LOAD_MS = STEAL_MS / 1.5
SLOTS = 8
"""Of each worker of these tests."""
HELP = {"max_cold": 1, "steal_ms": STEAL_MS}
HOT = "hot@1"


@pytest.fixture
def holders(redis: Redis, keys: Keys) -> Callable[[], Awaitable[set[str]]]:
    async def read() -> set[str]:
        return {raw.decode() for raw in await redis.smembers(keys.holders(HOT))}

    return read


@pytest.fixture
async def full(actor, enqueue, redis: Redis, keys: Keys) -> Actor:
    """A holder of the hot adapter that runs as many of its jobs as it can, a second each."""
    await redis.hset(keys.counters, "run_ms", 1000)
    holder = await actor("full", holds=[HOT])
    for _ in range(SLOTS):
        await enqueue(HOT)
    assert len(await holder.claim(sequences=SLOTS)) == SLOTS
    return holder


async def busy(actor, enqueue, name: str) -> Actor:
    """A worker that runs something else, and has room."""
    worker = await actor(name, holds=["other@1"])
    await enqueue("other@1")
    assert len(await worker.claim(sequences=1)) == 1
    return worker


async def backlog(enqueue, number: int) -> list[Job]:
    return [await enqueue(HOT) for _ in range(number)]


async def test_a_busy_worker_helps_when_the_holder_is_behind_by_more_than_a_load_and_a_turn(
    actor, enqueue, full: Actor
) -> None:
    worker = await busy(actor, enqueue, "w2")
    enough = int(SLOTS * (LOAD_MS + 1000) / 1000)
    jobs = await backlog(enqueue, enough)
    assert await worker.claim(**HELP) == []
    jobs += await backlog(enqueue, 1)
    assert await worker.claim_ids(**HELP, sequences=7) == [job.id for job in jobs[:7]]


async def test_a_holder_with_room_needs_no_help_however_much_waits(
    actor, enqueue, full: Actor
) -> None:
    worker = await busy(actor, enqueue, "w2")
    await actor("w3", holds=[HOT])
    await backlog(enqueue, 100)
    assert await worker.claim(**HELP) == []


async def test_a_backlog_brings_one_more_holder_at_a_time(
    actor, enqueue, queue: Queue, full: Actor, redis: Redis, keys: Keys, holders
) -> None:
    second, third = await actor("w2", holds=[]), await actor("w3", holds=[])
    for job in await backlog(enqueue, 60):
        await redis.hincrby(keys.job(job.id), "enq", -STEAL_MS - 1)
    assert len(await second.claim(**HELP)) == SLOTS
    assert await third.claim(**HELP) == []
    assert await queue.set_residents(second.id, add=[HOT]) == [HOT]
    assert len(await third.claim(**HELP)) == SLOTS
    assert await queue.set_residents(third.id, add=[HOT]) == [HOT]
    assert await holders() == {"full", "w2", "w3"}


async def test_a_load_that_fails_makes_way_for_the_next_helper(
    actor, enqueue, queue: Queue, full: Actor
) -> None:
    second, third = await actor("w2", holds=[]), await actor("w3", holds=[])
    await backlog(enqueue, 60)
    claimed = await second.claim(**HELP)
    await queue.set_residents(second.id, remove=[HOT])
    await queue.release(second.id, [c.job.id for c in claimed])
    assert len(await third.claim(**HELP)) == SLOTS


async def test_one_job_of_an_adapter_that_somebody_holds_is_loaded_for_by_nobody_else_at_once(
    actor, enqueue, redis: Redis, keys: Keys
) -> None:
    await actor("w1", holds=[HOT])
    others = [await actor(f"w{i}", holds=[]) for i in range(2, 6)]
    await redis.hset(keys.counters, "run_ms", 10**6)
    await enqueue(HOT)
    assert [await other.claim(**HELP) for other in others] == [[], [], [], []]


async def test_one_job_that_waited_for_its_holder_is_loaded_for_by_one_other_worker(
    actor, enqueue, full: Actor, redis: Redis, keys: Keys
) -> None:
    others = [await actor(f"w{i}", holds=[]) for i in range(2, 6)]
    (job,) = await backlog(enqueue, 1)
    await redis.hincrby(keys.job(job.id), "enq", -STEAL_MS - 1)
    assert [len(await other.claim(**HELP)) for other in others] == [1, 0, 0, 0]


async def test_whoever_loads_what_nobody_holds_shares_it_with_nobody(actor, queue: Queue) -> None:
    worker = await actor("w1", holds=[])
    await actor("w2", holds=["other@1"])
    assert await queue.set_residents(worker.id, add=[HOT, "other@1"]) == ["other@1"]


async def test_a_copy_is_surplus_when_the_others_have_twice_the_room_that_it_takes(
    actor, enqueue, queue: Queue
) -> None:
    await actor("w1", holds=[HOT])
    worker = await actor("w2", holds=[HOT])

    async def standing(running: int) -> Copy:
        return (await queue.shrink("w2", {HOT: running}, due=(), steal_ms=STEAL_MS))[HOT]

    assert await standing(4) is Copy.SURPLUS
    assert await standing(5) is Copy.NEEDED
    await enqueue(HOT)
    assert await standing(4) is Copy.NEEDED
    assert await standing(3) is Copy.SURPLUS
    assert len(await worker.claim()) == 1


async def test_a_copy_is_needed_while_a_job_has_waited_long(
    actor, enqueue, queue: Queue, redis: Redis, keys: Keys
) -> None:
    await actor("w1", holds=[HOT])
    await actor("w2", holds=[HOT])
    job = await enqueue(HOT)
    await redis.hincrby(keys.job(job.id), "enq", -STEAL_MS - 1)
    standing = await queue.shrink("w2", {HOT: 0}, due=[HOT], steal_ms=STEAL_MS)
    assert standing == {HOT: Copy.NEEDED}


async def test_a_copy_is_needed_while_its_other_holder_is_full(
    actor, queue: Queue, full: Actor
) -> None:
    await actor("w2", holds=[HOT])
    assert await queue.shrink("w2", {HOT: 0}, due=[HOT], steal_ms=STEAL_MS) == {HOT: Copy.NEEDED}


async def test_of_surplus_copies_that_are_due_one_remains(actor, queue: Queue, holders) -> None:
    names = ["w1", "w2", "w3"]
    for name in names:
        await actor(name, holds=[HOT])
    asked = {"due": [HOT], "steal_ms": STEAL_MS}
    found = [(await queue.shrink(name, {HOT: 0}, **asked))[HOT] for name in names]
    assert found == [Copy.GONE, Copy.GONE, Copy.SOLE]
    assert await holders() == {"w3"}
    assert await queue.shrink("w1", {HOT: 0}, **asked) == {HOT: Copy.GONE}, "a lost reply"


async def test_a_worker_that_gave_its_copy_up_is_asked_for_as_little_as_any_other(
    actor, enqueue, queue: Queue, redis: Redis, keys: Keys
) -> None:
    holder, worker = await actor("w1", holds=[HOT]), await actor("w2", holds=[HOT])
    await queue.shrink("w2", {HOT: 0}, due=[HOT], steal_ms=STEAL_MS)
    worker.holds = []
    assert await holder.claim(sequences=1) == []
    assert await worker.claim(**HELP, sequences=8) == []
    await enqueue(HOT)
    assert await worker.is_parked(), "the holder was woken, though it has less room"
    assert await worker.claim(**HELP) == []
    assert len(await holder.claim()) == 1


async def test_a_worker_that_was_given_up_may_not_shrink(actor, queue: Queue) -> None:
    await (await actor("w1", holds=[HOT])).die()
    with pytest.raises(LeaseLost):
        await queue.shrink("w1", {HOT: 0}, due=(), steal_ms=STEAL_MS)


async def test_what_waits_is_done_when_holders_come_and_go_meanwhile(
    actor, enqueue, queue: Queue, full: Actor, holders
) -> None:
    second = await actor("w2", holds=[])
    jobs = await backlog(enqueue, 60)
    claimed = await second.claim(**HELP)
    await queue.set_residents(second.id, add=[HOT])
    for each in claimed:
        await second.finish(each)
    second.holds = [HOT]
    while claimed := await second.claim(**HELP):
        for each in claimed:
            await second.finish(each)
    assert {(await queue.job_view(job.id)).state for job in jobs} == {JobState.DONE}
    await queue.release(full.id, [])
    assert await queue.shrink("w2", {HOT: 0}, due=[HOT], steal_ms=STEAL_MS) == {HOT: Copy.NEEDED}
    assert await holders() == {"full", "w2"}


# The two rules themselves.

counts, some = st.integers(0, 1000), st.integers(1, 1000)
times = st.integers(1, 100_000)


@pytest.fixture(scope="module")
def rule(redis_url: str) -> Callable[..., bool]:
    """Calls a function of spread.lua."""
    client = sync_redis.from_url(redis_url)
    script = "local P = ''\n" + read_script_file("spread") + "return %s(unpack(ARGV)) and 1 or 0"
    prepared = {
        name: client.register_script(
            "for i, v in ipairs(ARGV) do ARGV[i] = tonumber(v) end\n" + script % name
        )
        for name in ("needs_holder", "is_surplus")
    }
    return lambda name, *args: bool(prepared[name](args=args))


@given(running=some, run_ms=times, load_ms=times, turn_ms=counts)
def test_a_job_for_each_that_runs_is_no_backlog_unless_jobs_take_longer_than_a_load(
    rule, running: int, run_ms: int, load_ms: int, turn_ms: int
) -> None:
    needs = rule("needs_holder", running, running, run_ms, load_ms, turn_ms)
    assert needs == (run_ms > load_ms + turn_ms)


@given(waiting=counts, running=some, run_ms=times, load_ms=times)
def test_a_backlog_that_no_job_has_to_wait_a_turn_for_needs_nobody_beside_other_work(
    rule, waiting: int, running: int, run_ms: int, load_ms: int
) -> None:
    needs = rule("needs_holder", waiting, running, run_ms, load_ms, run_ms)
    assert not (needs and waiting <= running)


@given(waiting=counts, running=some, run_ms=times, load_ms=times, turn_ms=counts, more=counts)
def test_more_backlog_never_makes_a_holder_unneeded_nor_do_more_holders_make_it_needed(
    rule, waiting: int, running: int, run_ms: int, load_ms: int, turn_ms: int, more: int
) -> None:
    rest = (run_ms, load_ms, turn_ms)
    if rule("needs_holder", waiting, running, *rest):
        assert rule("needs_holder", waiting + more, running, *rest)
    else:
        assert not rule("needs_holder", waiting, running + more, *rest)


@given(waiting=counts, running=counts, free=counts)
def test_without_a_surplus_copy_the_others_still_have_room(
    rule, waiting: int, running: int, free: int
) -> None:
    if rule("is_surplus", waiting, running, free):
        assert free > 0
        assert free - waiting - running >= waiting + running


async def test_a_copy_that_was_taken_back_is_not_told_again(actor, queue, redis, keys) -> None:
    worker, other = await actor("w1"), await actor("w2")
    call = queue.shrink(worker.id, {"a@1": 0}, due=["a@1"], steal_ms=60_000)
    assert (await call)["a@1"] is Copy.GONE
    for _ in range(3):
        await queue.beat(worker.id, lease_ms=60_000, info=INFO)
    assert await redis.smembers(keys.residents(worker.id)) == set()
    assert await redis.smembers(keys.holders("a@1")) == {other.id.encode()}
