"""Every accepted job ends once, at its deadline at the latest, and is kept for a while."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pool_contents import pool_contents
from queue_support import API, INFO, LIMITS, NEVER_MS, Actor, make_job, tokens

from ops.local.embedded_redis import EmbeddedRedis
from shared.errors import ErrorCode, JobError
from shared.protocol.events import End
from shared.protocol.ids import JobId
from shared.protocol.jobs import JobState
from shared.protocol.logprobs import PositionLogprobs, TokenLogprob
from shared.protocol.queue_replies import FinishOutcome, Mail, MailKind
from shared.protocol.results import Choice, FinishReason, Result, Usage
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews


async def test_finish_stores_the_result_and_sends_the_end(
    actor, enqueue, events, queue, views
) -> None:
    worker = await actor()
    job = await enqueue()
    (claimed,) = await worker.claim()
    usage = Usage(prompt_tokens=3, completion_tokens=2)
    end = End(job=job.id, try_=claimed.try_, state=JobState.DONE, usage=usage)
    plain = Choice(text="ö/\n", finish=FinishReason.STOP, ids=(1, 2))
    token = TokenLogprob(token="ö", logprob=-0.25, bytes=(195, 182))
    position = PositionLogprobs(chosen=token, top=(token, token), offset=3)
    scores = '[null,{"7":{"logprob":-0.25,"rank":1,"decoded_token":"ö"}}]'
    detailed = replace(
        plain,
        logprobs=(position,),
        prompt_logprobs=(position, position),
        prompt_scores=scores,
    )
    result = Result(job=job.id, state=JobState.DONE, choices=(plain, detailed), usage=usage)
    assert await queue.finish(worker.id, end, result) == FinishOutcome.OK
    assert (await views.job_and_result(job.id))[1] == result
    assert await events(job) == [end]
    assert (await queue.beat(worker.id, lease_ms=6000, info=INFO)).booked == 0


async def test_a_running_job_is_cancelled_by_its_worker_with_the_given_reason(
    actor, enqueue, events, queue: Queue, views: PoolViews
) -> None:
    worker = await actor()
    job = await enqueue()
    (claimed,) = await worker.claim()
    reason = JobError(code=ErrorCode.DEADLINE_EXCEEDED, message='the "deadline" is over')
    assert await queue.cancel(job.id, error=reason) == JobState.RUNNING
    assert await queue.wait(worker.id, timeout_s=60) == Mail(kind=MailKind.CANCEL, job=job.id)
    assert await events(job) == []
    assert await worker.finish(claimed, JobState.CANCELLED, used=5) == FinishOutcome.OK
    (end,) = await events(job)
    assert (end.state, end.error, end.try_) == (JobState.CANCELLED, reason, 1)
    assert end.usage == Usage(prompt_tokens=5, completion_tokens=0)
    assert (await views.job_and_result(job.id))[1].error == reason
    assert (await views.job(job.id)).error == reason


async def test_an_ended_job_is_kept_for_retain(actor, enqueue, queue: Queue, redis, keys) -> None:
    worker = await actor()
    job = await enqueue()
    assert await redis.pttl(keys.job(job.id)) == -1
    (claimed,) = await worker.claim()
    await queue.publish(worker.id, {}, [tokens(job, 0, [1])])
    await worker.finish(claimed, JobState.FAILED)
    for key in (keys.job(job.id), keys.result(job.id), keys.checkpoints(job.id)):
        assert 50_000 < await redis.pttl(key) <= 60_000
    assert 110_000 < await redis.pttl(keys.replies(API)) <= 120_000


async def test_a_reap_expires_many_jobs_a_page_at_a_time(
    enqueue, queue: Queue, views: PoolViews
) -> None:
    for _ in range(70):
        await enqueue(deadline_ms=0)
    assert [(await queue.reap()).expired for _ in range(2)] == [70, 0]
    assert (await views.counts()).waiting == 0


async def test_a_sweep_drops_waiting_jobs_whose_hashes_were_deleted(
    enqueue, queue: Queue, views: PoolViews, redis, keys
) -> None:
    lost, kept = await enqueue(), await enqueue()
    await redis.delete(keys.job(lost.id))
    await queue.reap()
    assert (await views.counts()).waiting == 1
    assert (await views.job(kept.id)).position == 1


async def test_a_claim_includes_the_time_until_the_deadline(actor, enqueue) -> None:
    worker = await actor()
    await enqueue(deadline_ms=30_000)
    (claimed,) = await worker.claim()
    assert 25_000 < claimed.left_ms <= 30_000


async def test_a_sweep_ends_an_overdue_running_job_that_its_worker_does_not_end(
    actor, enqueue, events, queue: Queue, redis: Redis, keys: Keys
) -> None:
    worker, job = await actor(), await enqueue(deadline_ms=60_000)
    (claimed,) = await worker.claim()
    await redis.hincrby(keys.job(job.id), "deadline", -60_000)
    await redis.zincrby(keys.due, -60_000, job.id)
    assert (await queue.reap()).expired == 0  # its worker has a few seconds to end it
    await redis.hincrby(keys.job(job.id), "deadline", -60_000)
    await redis.zincrby(keys.due, -60_000, job.id)
    assert (await queue.reap()).expired == 1
    (end,) = await events(job)
    assert (end.state, end.error.code) == (JobState.EXPIRED, ErrorCode.DEADLINE_EXCEEDED)
    known = {job.id: claimed.claim_epoch}
    beat = await queue.beat(worker.id, lease_ms=6000, info=INFO, known=known)
    assert (beat.booked, beat.fenced) == (0, {job.id})
    assert await worker.finish(claimed) == FinishOutcome.FENCED


async def test_stalls_of_redis_do_not_count_towards_deadlines(
    actor, enqueue, queue: Queue, redis: Redis, keys: Keys
) -> None:
    await queue.reap()
    early = await enqueue(deadline_ms=10_000)
    late = await enqueue(deadline_ms=NEVER_MS)
    await redis.hincrby(keys.counters, "swept", -60_000)
    await redis.hincrby(keys.job(early.id), "deadline", -60_000)
    await redis.zincrby(keys.due, -60_000, early.id)
    worker = await actor()
    assert await worker.claim_ids(sequences=1) == [early.id]  # before any sweep
    await queue.release(worker.id, [early.id])
    await queue.reap()
    after = await enqueue(deadline_ms=10_000)
    assert await worker.claim_ids() == [early.id, late.id, after.id]


SECRET = "a secret prompt"


async def ended_job(queue: Queue, worker: Actor, limits: Any = LIMITS, **fields: Any) -> JobId:
    job = make_job(**fields)
    await queue.enqueue(job, limits)
    (claimed,) = await worker.claim()
    await worker.finish(claimed)
    return job.id


async def kept_bytes(redis: Redis, keys: Keys) -> int:
    return int(await redis.hget(keys.counters, "kept") or 0)


async def test_erasing_an_ended_job_leaves_nothing_of_it(
    queue: Queue, actor: Any, redis: Redis, keys: Keys
) -> None:
    worker: Actor = await actor()
    job = make_job(prompts=(SECRET,))
    await queue.enqueue(job, LIMITS)
    (claimed,) = await worker.claim()
    await worker.fail(claimed, ErrorCode.INTERNAL)  # its request is kept for a retry
    assert SECRET in str(await pool_contents(redis, keys))
    assert await queue.erase(job.id) is JobState.FAILED
    assert await queue.erase(job.id) is None
    assert SECRET not in str(await pool_contents(redis, keys))
    assert await redis.exists(keys.job(job.id), keys.result(job.id), keys.ended) == 0
    assert await redis.exists(keys.jobs("default")) == 0
    assert await kept_bytes(redis, keys) == 0


async def test_publications_are_kept_only_while_their_worker_has_jobs(
    queue: Queue, actor: Any, enqueue: Any, redis: Redis, keys: Keys
) -> None:
    worker: Actor = await actor()
    for _ in range(2):
        await enqueue()
    first, second = await worker.claim()
    await queue.publish(worker.id, {API: [tokens(first.job, 0, [1], SECRET)]})
    await worker.finish(first)
    assert await redis.exists(keys.sent(worker.id))
    await worker.finish(second)
    assert not await redis.exists(keys.sent(worker.id))


async def test_expired_jobs_leave_the_indexes(
    queue: Queue, actor: Any, redis: Redis, keys: Keys
) -> None:
    worker: Actor = await actor()
    gone = await ended_job(queue, worker, replace(LIMITS, retain_ms=1))
    kept = await ended_job(queue, worker)
    while await redis.exists(keys.job(gone)):
        pass
    assert await queue.retain() == (1, 0)
    assert await redis.zrange(keys.jobs("default"), 0, -1) == [kept.encode()]
    (member,) = await redis.zrange(keys.ended, 0, -1)
    assert member.decode().split() == [kept, str(await kept_bytes(redis, keys)), "default"]


async def test_a_tenant_that_keeps_much_loses_its_own_answers_first(
    queue: Queue, actor: Any, redis: Redis, keys: Keys, views: PoolViews
) -> None:
    worker: Actor = await actor()
    soon = replace(LIMITS, retain_ms=LIMITS.retain_ms // 2)
    quiet = [await ended_job(queue, worker, soon, tenant="quiet") for _ in range(2)]
    large = [await ended_job(queue, worker, tenant="large") for _ in range(6)]
    size = await kept_bytes(redis, keys) // 8
    limits = replace(LIMITS, retain_bytes=4 * size + size // 2)
    large.append(await ended_job(queue, worker, limits, tenant="large"))
    await queue.retain()
    assert [await views.job(job) is not None for job in quiet] == [True, True]
    assert [await views.job(job) is not None for job in large] == [False] * 5 + [True] * 2
    kept = await redis.zrange(keys.kept, 0, -1, withscores=True)
    assert sum(num_bytes for _, num_bytes in kept) == await kept_bytes(redis, keys)
    for job in (*quiet, *large):
        await queue.erase(job)
    assert not await redis.exists(keys.kept)


@pytest.mark.parametrize("prompt", ["hi", "x" * 30_000])
async def test_kept_bytes_are_about_the_memory_of_the_ended_jobs(
    own_server: EmbeddedRedis, open_client: Callable[[str], Redis], keys: Keys, prompt: str
) -> None:
    redis = open_client(own_server.url)
    queue = Queue(redis, keys)
    worker = await Actor(queue, redis, keys, "w1", ["a@1"]).register()

    async def end_jobs(number: int) -> None:
        for _ in range(number):
            await queue.enqueue(make_job(prompts=(prompt,)), LIMITS)
            (claimed,) = await worker.claim()
            await worker.fail(claimed, ErrorCode.INTERNAL)  # its request is kept
            await redis.delete(keys.replies(API))

    await end_jobs(50)
    used, kept = (await redis.info("memory"))["used_memory"], await all_kept_bytes(redis, keys)
    await end_jobs(300)
    grown = (await redis.info("memory"))["used_memory"] - used
    assert await all_kept_bytes(redis, keys) - kept == pytest.approx(grown, rel=0.25)


async def all_kept_bytes(redis: Redis, keys: Keys) -> int:
    """Return the estimated memory of ended jobs and of their records."""
    of_records = await redis.hget(keys.counters, "unanswered")  # type: ignore[misc]
    return await kept_bytes(redis, keys) + int(of_records)


async def test_the_published_text_of_a_cancelled_job_counts(
    queue: Queue, enqueue: Any, actor: Any, redis: Redis, keys: Keys
) -> None:
    worker: Actor = await actor()
    job = await enqueue()
    (claimed,) = await worker.claim()
    piece = tokens(job, 0, [1], "x" * 50_000)
    await queue.publish(worker.id, {API: [piece]}, [piece])
    await worker.finish(claimed, JobState.CANCELLED)
    assert await kept_bytes(redis, keys) > 50_000


@pytest.mark.parametrize(("max_memory", "num_deleted"), [(0, 0), (10**9, 0), (1, 3)])
async def test_kept_jobs_use_at_most_half_of_redis_memory(
    queue: Queue, actor: Any, redis: Redis, keys: Keys, max_memory: int, num_deleted: int
) -> None:
    worker: Actor = await actor()
    for _ in range(5):
        await ended_job(queue, worker)
    half = await kept_bytes(redis, keys) // 2
    limit = max_memory if max_memory != 1 else 2 * half
    await redis.hset(keys.counters, "max_memory", limit)  # type: ignore[misc]
    assert await queue.retain() == (0, num_deleted)
    if num_deleted:
        assert await kept_bytes(redis, keys) <= half


async def test_a_sweep_applies_the_limits(
    queue: Queue, actor: Any, redis: Redis, keys: Keys
) -> None:
    worker: Actor = await actor()
    await ended_job(queue, worker, replace(LIMITS, retain_bytes=1))
    await queue.reap()
    assert await kept_bytes(redis, keys) == 0
