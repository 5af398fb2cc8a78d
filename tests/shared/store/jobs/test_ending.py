"""Every accepted job ends in exactly one final event, at its deadline at the latest."""

from dataclasses import replace

from queue_support import API, INFO, NEVER_MS, tokens

from shared.errors import ErrorCode, JobError
from shared.protocol.events import End
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
    assert await queue.wait(worker.id, timeout_s=2) == Mail(kind=MailKind.CANCEL, job=job.id)
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
