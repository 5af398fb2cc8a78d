"""Workers that hold a version: exclusive loads, and the number of replicas."""

from collections.abc import Awaitable, Callable

import pytest
import redis as sync_redis
from hypothesis import given
from hypothesis import strategies as st
from queue_support import INFO, Actor

from shared.protocol.jobs import Job
from shared.protocol.queue_replies import ReplicaStanding
from shared.store.adapters.residency import ResidencyStore
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.redis.scripts import read_script_file


async def test_a_waiting_version_without_a_holder_has_one_loader(
    actor, enqueue, residency: ResidencyStore
) -> None:
    first, second = await actor("w1", holds=[]), await actor("w2", holds=[])
    job = await enqueue("c@1")
    assert await residency.start_load(first.id, "c@1")
    assert await residency.start_load(first.id, "c@1"), (
        "the call may be repeated after a lost reply"
    )
    assert not await residency.start_load(second.id, "c@1")
    assert await second.claim(max_cold=1) == []
    await residency.set_residents(first.id, remove=["c@1"])
    assert await second.claim_ids(max_cold=1) == [job.id]


async def test_a_version_with_a_holder_or_without_jobs_is_not_loaded(
    actor, enqueue, residency: ResidencyStore
) -> None:
    worker = await actor("w1", holds=[])
    await actor("w2", holds=["held@1"])
    await enqueue("held@1")
    assert not await residency.start_load(worker.id, "held@1")
    assert not await residency.start_load(worker.id, "unknown@1")
    await enqueue("c@1")
    await worker.die()
    assert not await residency.start_load(worker.id, "c@1")


async def test_a_heartbeat_renews_the_exclusive_load_of_a_version(
    actor, enqueue, queue: Queue, residency: ResidencyStore, redis: Redis, keys: Keys
) -> None:
    first, second = await actor("w1", holds=[]), await actor("w2", holds=[])
    await enqueue("c@1")
    await residency.start_load(first.id, "c@1")
    await redis.pexpire(keys.loading("c@1"), 5000)
    await queue.beat(second.id, lease_ms=60_000, info=INFO, loading=["c@1"])
    assert await redis.pttl(keys.loading("c@1")) <= 5000
    await queue.beat(first.id, lease_ms=60_000, info=INFO, loading=["c@1", "other@1"])
    assert await redis.pttl(keys.loading("c@1")) > 5000
    assert not await redis.exists(keys.loading("other@1"))


async def test_waiting_versions_without_a_holder_are_listed_in_the_order_of_their_jobs(
    actor, enqueue, residency: ResidencyStore
) -> None:
    await actor("w1", holds=["held@1"])
    for version in ("b@1", "held@1", "a@1", "b@1", "c@1"):
        await enqueue(version)
    assert await residency.cold_heads(8) == ["b@1", "a@1", "c@1"]
    assert await residency.cold_heads(2) == ["b@1", "a@1"]


STEAL_MS = 3000
LOAD_MS = STEAL_MS / 1.5
SLOTS = 8
"""Capacity of each worker in these tests."""
HELP = {"max_cold": 1, "steal_ms": STEAL_MS}
HOT = "hot@1"


@pytest.fixture
def holders(redis: Redis, keys: Keys) -> Callable[[], Awaitable[set[str]]]:
    async def read() -> set[str]:
        return {raw.decode() for raw in await redis.smembers(keys.holders(HOT))}

    return read


@pytest.fixture
async def full(actor, enqueue, redis: Redis, keys: Keys) -> Actor:
    """Return a full holder of the hot adapter, whose jobs take a second each."""
    await redis.hset(keys.counters, "run_ms", 1000)
    holder = await actor("full", holds=[HOT])
    for _ in range(SLOTS):
        await enqueue(HOT)
    assert len(await holder.claim(sequences=SLOTS)) == SLOTS
    return holder


async def busy(actor, enqueue, name: str) -> Actor:
    """Return a worker that runs another job and has free capacity."""
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


async def test_a_holder_with_free_capacity_needs_no_help_for_any_backlog(
    actor, enqueue, full: Actor
) -> None:
    worker = await busy(actor, enqueue, "w2")
    await actor("w3", holds=[HOT])
    await backlog(enqueue, 100)
    assert await worker.claim(**HELP) == []


async def test_a_backlog_brings_one_more_holder_at_a_time(
    actor, enqueue, residency: ResidencyStore, full: Actor, redis: Redis, keys: Keys, holders
) -> None:
    second, third = await actor("w2", holds=[]), await actor("w3", holds=[])
    for job in await backlog(enqueue, 60):
        await redis.hincrby(keys.job(job.id), "enq", -STEAL_MS - 1)
    assert len(await second.claim(**HELP)) == SLOTS
    assert await third.claim(**HELP) == []
    assert await residency.set_residents(second.id, add=[HOT]) == [HOT]
    assert len(await third.claim(**HELP)) == SLOTS
    assert await residency.set_residents(third.id, add=[HOT]) == [HOT]
    assert await holders() == {"full", "w2", "w3"}


async def test_after_a_failed_load_the_next_helper_may_load(
    actor, enqueue, queue: Queue, residency: ResidencyStore, full: Actor
) -> None:
    second, third = await actor("w2", holds=[]), await actor("w3", holds=[])
    await backlog(enqueue, 60)
    claimed = await second.claim(**HELP)
    await residency.set_residents(second.id, remove=[HOT])
    await queue.release(second.id, [c.job.id for c in claimed])
    assert len(await third.claim(**HELP)) == SLOTS


async def test_a_single_job_that_waited_for_its_holder_is_stolen_by_one_worker(
    actor, enqueue, full: Actor, redis: Redis, keys: Keys
) -> None:
    others = [await actor(f"w{i}", holds=[]) for i in range(2, 6)]
    (job,) = await backlog(enqueue, 1)
    await redis.hincrby(keys.job(job.id), "enq", -STEAL_MS - 1)
    assert [len(await other.claim(**HELP)) for other in others] == [1, 0, 0, 0]


async def test_the_first_holder_of_a_version_has_no_replica(
    actor, residency: ResidencyStore
) -> None:
    worker = await actor("w1", holds=[])
    await actor("w2", holds=["other@1"])
    assert await residency.set_residents(worker.id, add=[HOT, "other@1"]) == ["other@1"]


async def test_a_replica_is_surplus_when_the_others_have_twice_its_capacity_free(
    actor, enqueue, residency: ResidencyStore
) -> None:
    await actor("w1", holds=[HOT])
    worker = await actor("w2", holds=[HOT])

    async def standing(running: int) -> ReplicaStanding:
        return (await residency.shrink("w2", {HOT: running}, due=(), steal_ms=STEAL_MS))[HOT]

    assert await standing(4) is ReplicaStanding.SURPLUS
    assert await standing(5) is ReplicaStanding.NEEDED
    await enqueue(HOT)
    assert await standing(4) is ReplicaStanding.NEEDED
    assert await standing(3) is ReplicaStanding.SURPLUS
    assert len(await worker.claim()) == 1


async def test_a_replica_is_needed_while_a_job_has_waited_long(
    actor, enqueue, residency: ResidencyStore, redis: Redis, keys: Keys
) -> None:
    await actor("w1", holds=[HOT])
    await actor("w2", holds=[HOT])
    job = await enqueue(HOT)
    await redis.hincrby(keys.job(job.id), "enq", -STEAL_MS - 1)
    standing = await residency.shrink("w2", {HOT: 0}, due=[HOT], steal_ms=STEAL_MS)
    assert standing == {HOT: ReplicaStanding.NEEDED}


async def test_a_replica_is_needed_while_its_other_holder_is_full(
    actor, residency: ResidencyStore, full: Actor
) -> None:
    await actor("w2", holds=[HOT])
    assert await residency.shrink("w2", {HOT: 0}, due=[HOT], steal_ms=STEAL_MS) == {
        HOT: ReplicaStanding.NEEDED
    }


async def test_one_of_the_due_surplus_replicas_remains(
    actor, residency: ResidencyStore, holders
) -> None:
    names = ["w1", "w2", "w3"]
    for name in names:
        await actor(name, holds=[HOT])
    asked = {"due": [HOT], "steal_ms": STEAL_MS}
    found = [(await residency.shrink(name, {HOT: 0}, **asked))[HOT] for name in names]
    assert found == [ReplicaStanding.GONE, ReplicaStanding.GONE, ReplicaStanding.SOLE]
    assert await holders() == {"w3"}
    assert await residency.shrink("w1", {HOT: 0}, **asked) == {HOT: ReplicaStanding.GONE}, (
        "the call may be repeated after a lost reply"
    )


async def test_a_worker_that_gave_up_its_replica_steals_no_jobs_of_it(
    actor, enqueue, residency: ResidencyStore, redis: Redis, keys: Keys
) -> None:
    holder, worker = await actor("w1", holds=[HOT]), await actor("w2", holds=[HOT])
    await residency.shrink("w2", {HOT: 0}, due=[HOT], steal_ms=STEAL_MS)
    worker.holds = []
    assert await holder.claim(sequences=1) == []
    assert await worker.claim(**HELP, sequences=8) == []
    await enqueue(HOT)
    assert await worker.is_parked(), "the holder was woken, although it has less free capacity"
    assert await worker.claim(**HELP) == []
    assert len(await holder.claim()) == 1


# Tests of the two rules in spread.lua.

counts, some = st.integers(0, 1000), st.integers(1, 1000)
times = st.integers(1, 100_000)


@pytest.fixture(scope="module")
def rule(redis_url: str) -> Callable[..., bool]:
    """Return a function that calls a function of spread.lua."""
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
def test_one_waiting_job_per_running_job_is_a_backlog_only_if_jobs_take_longer_than_a_load(
    rule, running: int, run_ms: int, load_ms: int, turn_ms: int
) -> None:
    needs = rule("needs_holder", running, running, run_ms, load_ms, turn_ms)
    assert needs == (run_ms > load_ms + turn_ms)


@given(waiting=counts, running=some, run_ms=times, load_ms=times)
def test_a_backlog_that_is_served_in_one_turn_needs_no_busy_helper(
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
def test_without_a_surplus_replica_the_others_have_free_capacity(
    rule, waiting: int, running: int, free: int
) -> None:
    if rule("is_surplus", waiting, running, free):
        assert free > 0
        assert free - waiting - running >= waiting + running


async def test_a_withdrawn_replica_is_not_reported_again(
    actor, queue, residency, redis, keys
) -> None:
    worker, other = await actor("w1"), await actor("w2")
    call = residency.shrink(worker.id, {"a@1": 0}, due=["a@1"], steal_ms=60_000)
    assert (await call)["a@1"] is ReplicaStanding.GONE
    for _ in range(3):
        await queue.beat(worker.id, lease_ms=60_000, info=INFO)
    assert await redis.smembers(keys.residents(worker.id)) == set()
    assert await redis.smembers(keys.holders("a@1")) == {other.id.encode()}
