"""Claim epochs, which a failover can't repeat: of two owners of a try, only one can write."""

from pathlib import Path

import pytest
from queue_support import API, INFO, LIMITS, Actor, eventually, make_job, tokens

from shared.protocol.codec import decode_events
from shared.protocol.events import Tokens
from shared.protocol.queue_replies import FinishOutcome
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews


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
