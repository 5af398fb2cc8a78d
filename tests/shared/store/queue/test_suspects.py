"""A job whose workers died runs alone. If it kills them even then, it becomes a dead letter."""

from queue_support import Actor, make_adapter

from shared.errors import ErrorCode
from shared.protocol.events import End, Retry
from shared.protocol.jobs import JobState
from shared.protocol.queue_replies import FinishOutcome
from shared.store.queue import Queue
from shared.store.registry import Registry
from shared.store.views.pool_views import PoolViews


async def die_alone(worker: Actor, job_id: str) -> None:
    """Let a worker die while it runs this job alone, and start it again."""
    assert await worker.claim_ids(sequences=1) == [job_id]
    await worker.die()
    await worker.register()


async def test_another_worker_continues_a_job_after_its_worker_died(actor, enqueue, events) -> None:
    worker = await actor("w1")
    job = await enqueue()
    (old,) = await worker.claim()
    await worker.die()
    assert await events(job) == [Retry(job=job.id, try_=1)]
    successor = await actor("w2")
    (new,) = await successor.claim()
    assert (new.job, new.try_, new.suspect) == (job, 2, True)
    assert await worker.finish(old) == FinishOutcome.FENCED
    assert await successor.finish(new) == FinishOutcome.OK
    assert [type(event) for event in await events(job)] == [Retry, End]


async def die_together(worker: Actor, *job_ids: str) -> None:
    """Let a worker die while it runs these jobs, and start it again."""
    assert await worker.claim_ids() == list(job_ids)
    await worker.die()
    await worker.register()


async def test_jobs_of_a_killed_worker_may_run_in_one_batch_again(actor, enqueue) -> None:
    worker = await actor()
    jobs = [(await enqueue()).id for _ in range(3)]
    await die_together(worker, *jobs)
    claimed = await worker.claim()
    assert [(c.job.id, c.suspect) for c in claimed] == [(job, False) for job in jobs]


async def test_a_second_death_in_a_batch_makes_suspects_which_run_alone(actor, enqueue) -> None:
    worker, other = await actor("w1"), await actor("w2")
    suspects = [await enqueue() for _ in range(2)]
    for _ in range(2):
        await die_together(worker, *[job.id for job in suspects])
    await enqueue()
    (first,) = await other.claim()
    assert (first.job.id, first.suspect) == (suspects[0].id, True)
    assert await other.claim(sequences=7) == []
    await other.finish(first)
    assert await other.claim_ids() == [suspects[1].id]


async def test_a_suspect_after_other_jobs_is_not_claimed_with_them(actor, enqueue) -> None:
    worker, other = await actor("w1"), await actor("w2")
    suspect = await enqueue()
    await worker.claim()
    await worker.die()
    before = await enqueue(priority=1, version="b@1")
    other.holds = ["a@1", "b@1"]
    (taken,) = await other.claim()
    assert taken.job.id == before.id
    assert await other.claim(sequences=7) == []
    await other.finish(taken)
    assert await other.claim_ids() == [suspect.id]


async def test_one_busy_worker_drains_for_a_suspect_and_the_others_skip_it(actor, enqueue) -> None:
    victim, first, second = [await actor(name) for name in ("w1", "w2", "w3")]
    suspect = await enqueue()
    await victim.claim()
    running = []
    for worker in (first, second):
        await enqueue()
        running += await worker.claim()
    await victim.die()
    waiting = await enqueue()
    assert await first.claim(sequences=7) == []
    assert await second.claim_ids(sequences=7) == [waiting.id]
    assert not await first.is_parked()
    later = await enqueue()
    assert await first.claim(sequences=7) == []
    await first.finish(running[0])
    assert await first.claim_ids() == [suspect.id]
    assert await second.claim_ids(sequences=6) == [later.id]


async def test_a_reservation_ends_when_its_worker_stops_renewing_it(
    actor, enqueue, redis, keys
) -> None:
    victim, silent, other = [await actor(name) for name in ("w1", "w2", "w3")]
    suspect = await enqueue()
    await victim.claim()
    for worker in (silent, other):
        await enqueue()
        await worker.claim()
    await victim.die()
    await silent.claim(sequences=7)
    await redis.hset(keys.job(suspect.id), "reserved", f"{silent.id} 1")
    waiting = await enqueue()
    assert await other.claim(sequences=7) == []
    assert await silent.claim_ids(sequences=7) == [waiting.id]


async def test_a_cold_suspect_is_claimed_alone_too(actor, enqueue) -> None:
    victim = await actor("w1", holds=["c@1"])
    suspect = await enqueue("c@1")
    await victim.claim()
    await victim.die()
    other = await actor("w2")
    await enqueue("a@1", priority=1)
    (own,) = await other.claim(max_cold=1)
    assert await other.claim(sequences=7, max_cold=1) == []
    await other.finish(own)
    (claimed,) = await other.claim(max_cold=1)
    assert (claimed.job.id, claimed.suspect) == (suspect.id, True)


async def test_deaths_in_a_batch_never_end_a_job(actor, enqueue, views: PoolViews) -> None:
    """Only the first two deaths happen in a batch. Afterwards the job runs alone."""
    worker = await actor()
    jobs = [await enqueue() for _ in range(3)]
    for _ in range(2):
        await die_together(worker, *[job.id for job in jobs])
    assert [(await views.job(job.id)).state for job in jobs] == [JobState.QUEUED] * 3


async def test_a_job_that_kills_its_worker_twice_alone_is_a_dead_letter(
    actor, enqueue, events, views: PoolViews, redis, keys
) -> None:
    worker = await actor()
    job, mate = await enqueue(), await enqueue()
    for _ in range(2):
        await die_together(worker, job.id, mate.id)
    for _ in range(2):
        await die_alone(worker, job.id)
    end = (await events(job))[-1]
    assert (end.state, end.error.code) == (JobState.DEAD, ErrorCode.POISON_JOB)
    assert (await views.job(job.id)).error == end.error
    ((_, letter),) = await redis.xrange(keys.dead)
    assert (letter[b"id"].decode(), letter[b"try"]) == (job.id, b"4")
    (survivor,) = await worker.claim()
    assert survivor.job.id == mate.id
    assert await worker.finish(survivor) == FinishOutcome.OK


async def test_releasing_a_suspect_does_not_count(
    actor, enqueue, queue: Queue, views: PoolViews
) -> None:
    worker = await actor()
    job = await enqueue()
    await die_alone(worker, job.id)
    await die_alone(worker, job.id)
    for _ in range(5):
        (claimed,) = await worker.claim()
        assert claimed.suspect
        await queue.release(worker.id, [job.id])
    assert (await views.job(job.id)).state == JobState.QUEUED


async def bury(worker: Actor, enqueue, version: str = "a@1"):
    job = await enqueue(version, priority=1)
    for _ in range(3):
        await die_alone(worker, job.id)
    return job


async def test_three_dead_jobs_in_a_row_quarantine_the_version(
    actor, enqueue, events, views: PoolViews, redis, keys
) -> None:
    registry = Registry(redis, keys)
    await registry.add_adapter(make_adapter("a@1"))
    worker = await actor()
    waiting = [await enqueue("a@1") for _ in range(2)]
    other = await enqueue("b@1")
    for _ in range(2):
        await bury(worker, enqueue)
    assert (await registry.adapter("a")).state == "ready"
    await bury(worker, enqueue)
    assert (await registry.adapter("a")).state == "quarantined"
    for job in waiting:
        (end,) = await events(job)
        assert (end.state, end.error.code) == (JobState.FAILED, ErrorCode.ADAPTER_UNAVAILABLE)
    assert (await views.counts()).waiting == 1
    assert await worker.claim_ids(max_cold=1) == [other.id]


async def test_a_job_that_is_done_in_between_starts_the_count_again(
    actor, enqueue, redis, keys
) -> None:
    registry = Registry(redis, keys)
    await registry.add_adapter(make_adapter("a@1"))
    worker = await actor()
    for _ in range(2):
        await bury(worker, enqueue)
    await enqueue()
    (claimed,) = await worker.claim()
    await worker.finish(claimed)
    await bury(worker, enqueue)
    assert (await registry.adapter("a")).state == "ready"


async def test_waiting_jobs_of_all_quarantined_versions_end(
    actor, enqueue, queue: Queue, views: PoolViews, redis, keys
) -> None:
    worker = await actor(holds=["b@1"])
    await enqueue("b@1")
    await worker.claim()  # a running job keeps its version in `doomed`
    waiting = [await enqueue("a@1") for _ in range(100)]
    await redis.sadd(keys.doomed, "a@1", "b@1")
    await queue.reap()
    states = {(await views.job(job.id)).state for job in waiting}
    assert states == {JobState.FAILED}
    assert await redis.smembers(keys.doomed) == {b"b@1"}
