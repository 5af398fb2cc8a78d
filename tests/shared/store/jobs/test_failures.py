"""Killed or suspended workers, and a Redis that stops, forgets writes or runs out of memory."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from adapter_versions import BASE
from child_processes import child_processes
from queue_support import API, INFO, LIMITS, Actor, eventually, make_job, tokens

from ops.local.embedded_redis import EmbeddedRedis
from shared.errors import LeaseLost, QueueFull, RedisUnavailable
from shared.protocol.codec import decode_events
from shared.protocol.events import Retry, Tokens
from shared.protocol.jobs import JobState
from shared.protocol.queue_replies import FinishOutcome
from shared.store.adapters.registry import Registry
from shared.store.adapters.residency import ResidencyStore
from shared.store.jobs.queue import Queue
from shared.store.jobs.token_streams import ReplyReader, merge, read_checkpoints, recover
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

ACTOR = Path(__file__).parents[3] / "support" / "actor_process.py"
LEASE_MS = 1000

Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start_actor(redis_url: str, pool: str) -> Iterator[Start]:
    with child_processes() as start_process:

        def start(name: str) -> "subprocess.Popen[str]":
            command = [sys.executable, str(ACTOR), redis_url, pool, name, str(LEASE_MS)]
            return start_process(command, stdout=subprocess.PIPE)

        yield start


async def next_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), 60)
    return line.strip()


async def reap_until_claimed(actor: Actor, queue: Queue) -> list:
    async def attempt() -> list:
        await queue.reap()
        await queue.beat(actor.id, lease_ms=60_000, info=INFO)
        return await actor.claim()

    return await eventually(attempt)


async def test_a_killed_workers_job_goes_on_behind_its_last_token(
    start_actor: Start, actor, enqueue, events, queue: Queue, redis: Redis, keys: Keys
) -> None:
    job = await enqueue()
    victim = start_actor("victim")
    assert await next_line(victim) == f"claimed {job.id}"

    async def has_shown_some() -> bool:
        return len(await events(job)) > 30

    await eventually(has_shown_some)
    victim.kill()
    victim.wait()
    successor = await actor("successor")
    (claimed,) = await reap_until_claimed(successor, queue)
    assert (claimed.try_, claimed.suspect) == (2, True)
    visible = [event for event in await events(job) if isinstance(event, Tokens)]
    assert await recover(redis, keys, claimed) == merge(visible)
    assert isinstance((await events(job))[-1], Retry)


async def test_a_frozen_worker_is_fenced_when_it_wakes(
    start_actor: Start, actor, enqueue, events, queue: Queue
) -> None:
    job = await enqueue()
    frozen = start_actor("frozen")
    assert await next_line(frozen) == f"claimed {job.id}"
    os.kill(frozen.pid, signal.SIGSTOP)
    successor = await actor("successor")
    (claimed,) = await reap_until_claimed(successor, queue)
    settled = await events(job)
    os.kill(frozen.pid, signal.SIGCONT)
    assert await next_line(frozen) == "lost"
    assert await next_line(frozen) == "finish fenced"
    assert await events(job) == settled
    assert await successor.finish(claimed) == FinishOutcome.OK


async def test_every_call_of_a_worker_that_was_given_up_raises_lease_lost(
    actor, queue: Queue, residency: ResidencyStore
) -> None:
    worker = await actor()
    await worker.die()
    calls: list[Awaitable[object]] = [
        queue.beat(worker.id, lease_ms=1000, info=INFO),
        residency.set_residents(worker.id, add=["a@1"]),
        residency.shrink(worker.id, {"a@1": 0}, due=(), steal_ms=1),
        queue.publish(worker.id, {}),
        worker.claim(),
    ]
    for call in calls:
        with pytest.raises(LeaseLost, match="w1"):
            await call


async def test_scripts_are_loaded_again_after_redis_forgot_them(
    enqueue, views: PoolViews, redis: Redis
) -> None:
    await enqueue()
    await redis.script_flush()
    await enqueue()
    assert (await views.counts()).waiting == 2


async def test_an_absent_redis_is_unavailable_to_every_caller(open_client, pool: str) -> None:
    redis, keys = open_client("redis://127.0.0.1:1/0"), Keys(pool)
    queue, views, job = Queue(redis, keys), PoolViews(redis, keys), make_job()
    calls: list[Awaitable[object]] = [
        queue.enqueue(job, LIMITS),
        queue.wait("w1", timeout_s=1),
        queue.reap(),
        views.job(job.id),
        views.workers(),
        views.counts(),
        views.job_and_result(job.id),
        ReplyReader(redis, keys, API).read(),
        read_checkpoints(redis, keys, job.id),
        Registry(redis, keys).resolve("a"),
        Registry(redis, keys).adapters(),
    ]
    for call in calls:
        with pytest.raises(RedisUnavailable, match="out of reach"):
            await call


@pytest.mark.slow
async def test_a_suspended_redis_is_unavailable_in_bounded_time(
    own_server: EmbeddedRedis, open_client, keys: Keys
) -> None:
    redis = open_client(own_server.url)
    views = PoolViews(redis, keys)
    await views.counts()
    os.kill(own_server.pid, signal.SIGSTOP)
    with pytest.raises(RedisUnavailable):
        await asyncio.wait_for(views.counts(), 60)
    os.kill(own_server.pid, signal.SIGCONT)
    assert (await views.counts()).waiting == 0


async def test_a_read_only_replica_is_unavailable(own_server, open_client, keys: Keys) -> None:
    redis = open_client(own_server.url)
    await redis.replicaof("127.0.0.1", "1")
    with pytest.raises(RedisUnavailable):
        await Queue(redis, keys).enqueue(make_job(), LIMITS)
    await redis.replicaof("NO", "ONE")


async def test_without_free_memory_all_calls_that_free_memory_work(
    own_server: EmbeddedRedis, open_client, keys: Keys
) -> None:
    redis = open_client(own_server.url)
    queue = Queue(redis, keys)
    residency = ResidencyStore(redis, keys)
    views = PoolViews(redis, keys)
    worker = await Actor(queue, redis, keys, "w1", ["a@1"]).register()
    jobs = [make_job() for _ in range(5)]
    for job in jobs:
        await queue.enqueue(job, LIMITS)
    (first,) = await worker.claim(sequences=1)
    await redis.config_set("maxmemory", 1)
    with pytest.raises(QueueFull, match="memory: 4 waiting"):
        await queue.enqueue(make_job(), LIMITS)
    assert await Registry(redis, keys).set_base(BASE)  # as at the start of a worker
    assert (await queue.beat(worker.id, lease_ms=60_000, info=INFO)).booked == 1
    assert await queue.reconcile(worker.id, [first.job.id], grace_ms=0) == 0
    piece = tokens(jobs[0], 0, [1])
    await queue.publish(worker.id, {API: [piece]}, (piece,))
    assert await worker.finish(first) == FinishOutcome.OK
    assert await queue.cancel(jobs[1].id) == JobState.CANCELLED
    (second,) = await worker.claim(sequences=1)
    await residency.set_residents(worker.id, add=["b@1"], remove=["b@1"])
    assert await queue.release(worker.id, [second.job.id]) == 1
    assert len(await worker.claim()) == 3
    await worker.die()
    other = await Actor(queue, redis, keys, "w2", ["a@1"]).register()
    third, *_ = await other.claim()
    assert await other.finish(third) == FinishOutcome.OK
    await queue.leave(other.id)
    assert (await views.counts()).waiting == 2


async def test_accepted_jobs_survive_a_killed_redis_and_leases_are_renewed(
    start_server, open_client, tmp_path: Path, keys: Keys
) -> None:
    server = start_server(tmp_path)
    redis = open_client(server.url)
    queue = Queue(redis, keys)
    views = PoolViews(redis, keys)
    worker = await Actor(queue, redis, keys, "w1", ["a@1"]).register(lease_ms=300)
    await queue.reap()
    running, waiting = make_job(), make_job()
    for job in (running, waiting):
        await queue.enqueue(job, LIMITS)
    (claimed,) = await worker.claim(sequences=1)
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(RedisUnavailable):
        await views.counts()
    await asyncio.sleep(0.4)  # longer than the lease
    server.stop()
    server = start_server(tmp_path, port=server.port)
    assert (await queue.reap()).workers == 0
    assert await worker.finish(claimed) == FinishOutcome.OK
    assert await worker.claim_ids() == [waiting.id]

    async def is_given_up() -> bool:
        return (await queue.reap()).workers == 1

    await eventually(is_given_up)


async def test_every_claim_has_another_epoch(actor, enqueue, queue: Queue) -> None:
    worker, job = await actor(), await enqueue()
    epochs = set()
    for _ in range(5):
        (claimed,) = await worker.claim()
        epochs.add(claimed.claim_epoch)
        await queue.release(worker.id, [job.id])
    assert len(epochs) == 5
    assert 0 not in epochs


async def test_publications_of_another_claim_of_the_same_worker_and_try_are_fenced(
    actor, enqueue, events, queue: Queue, redis: Redis, keys: Keys
) -> None:
    """The state after a failover that lost one claim and restored an earlier one."""
    worker, job, mate = await actor(), await enqueue(), await enqueue()
    old, _ = await worker.claim()
    await redis.zadd(keys.owned(worker.id), {job.id: old.claim_epoch - 1})
    epochs = {job.id: old.claim_epoch, mate.id: old.claim_epoch}
    pieces = [tokens(job, 0, [1]), tokens(mate, 0, [2])]
    standing = await queue.publish(worker.id, {API: pieces}, pieces, claim_epochs=epochs)
    assert standing.fenced == {job.id}
    assert await events() == []
    assert await worker.finish(old) == FinishOutcome.FENCED
    beat = await queue.beat(worker.id, lease_ms=6000, info=INFO, known=epochs)
    assert (beat.booked, beat.fenced) == (2, {job.id})


@pytest.fixture
async def replicated(start_server, open_client, tmp_path: Path) -> tuple[Redis, Redis]:
    """Clients of a master and of its replica."""
    master, replica = start_server(tmp_path), start_server()
    await open_client(master.url).config_set("repl-diskless-sync-delay", 0)
    await open_client(replica.url).replicaof("127.0.0.1", master.port)
    return open_client(master.url), open_client(replica.url)


async def test_after_a_failover_only_the_owner_that_redis_knows_continues(
    replicated: tuple[Redis, Redis], keys: Keys
) -> None:
    redis, other = replicated
    queue, new_queue = Queue(redis, keys), Queue(other, keys)
    first = await Actor(queue, redis, keys, "w1", ["a@1"]).register()
    job = make_job()
    await queue.enqueue(job, LIMITS)
    await eventually(lambda: PoolViews(other, keys).job(job.id))
    await other.replicaof("NO", "ONE")
    (claimed,) = await first.claim()
    await queue.publish(first.id, {API: [tokens(job, 0, [1], "A")]})
    second = await Actor(new_queue, other, keys, "w2", ["a@1"]).register()
    (again,) = await second.claim()
    assert again.try_ == claimed.try_
    await new_queue.publish(second.id, {API: [tokens(job, 0, [2], "B")]})
    late = tokens(job, 1, [3], "A")
    epochs = {job.id: claimed.claim_epoch}
    standing = await new_queue.publish(first.id, {API: [late]}, (late,), claim_epochs=epochs)
    assert standing.fenced == {job.id}
    shown = [event for event in await _events(other, keys) if isinstance(event, Tokens)]
    assert [event.text for event in shown] == ["B"]
    zombie = Actor(new_queue, other, keys, "w1", ["a@1"])
    assert await zombie.finish(claimed) == FinishOutcome.FENCED
    beat = await new_queue.beat(first.id, lease_ms=6000, info=INFO, known=epochs)
    assert beat.fenced == {job.id}
    assert await second.finish(again) == FinishOutcome.OK


async def test_a_publication_reports_how_many_acknowledged_ones_a_failover_has_lost(
    replicated: tuple[Redis, Redis], keys: Keys
) -> None:
    redis, other = replicated
    queue, new_queue = Queue(redis, keys), Queue(other, keys)
    worker = await Actor(queue, redis, keys, "w1", ["a@1"]).register()
    job = make_job()
    await queue.enqueue(job, LIMITS)
    await worker.claim()

    async def publish(queue: Queue, index: int, *, num_acknowledged: int) -> int:
        events = {API: [tokens(job, index, [1])]}
        standing = await queue.publish(worker.id, events, num_acknowledged=num_acknowledged)
        assert not standing.fenced
        return standing.num_lost

    assert await publish(queue, 0, num_acknowledged=0) == 0
    assert await publish(queue, 1, num_acknowledged=1) == 0
    assert await publish(queue, 1, num_acknowledged=1) == 0  # repeated, as after a lost reply
    assert await redis.wait(1, 10_000) == 1
    await other.replicaof("NO", "ONE")
    assert await publish(queue, 2, num_acknowledged=2) == 0
    assert await publish(queue, 3, num_acknowledged=3) == 0
    assert await publish(new_queue, 4, num_acknowledged=4) == 2
    assert await publish(new_queue, 5, num_acknowledged=5) == 0


async def _events(redis: Redis, keys: Keys) -> list[object]:
    entries = await redis.xrange(keys.replies(API))
    return [event for _, fields in entries for event in decode_events(fields[b"e"])]


async def test_adapters_of_a_worker_that_redis_forgot_are_reported_again(
    actor, queue: Queue, redis: Redis, keys: Keys
) -> None:
    """The state after a failover that lost the last changes."""
    worker = await actor(holds=["a@1", "b@1"])
    await redis.srem(keys.residents(worker.id), "b@1")
    await redis.delete(keys.holders("b@1"))
    for _ in range(2):  # a single mismatch may be due to a call under way
        await queue.beat(worker.id, lease_ms=60_000, info=INFO)
    assert await redis.sismember(keys.residents(worker.id), "b@1")
    assert await redis.sismember(keys.holders("b@1"), worker.id)
