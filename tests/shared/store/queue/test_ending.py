"""Every accepted job ends in exactly one final event."""

from dataclasses import replace

import pytest
from queue_support import API, INFO, NEVER_MS, Actor, tokens

from shared.errors import ErrorCode, JobError
from shared.protocol.events import End, Retry
from shared.protocol.jobs import Job, JobState
from shared.protocol.logprobs import PositionLogprobs, TokenLogprob
from shared.protocol.queue_replies import FinishOutcome, Mail, MailKind
from shared.protocol.results import Choice, FinishReason, Result, Usage
from shared.store.queue import Queue
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


async def test_finishing_twice_is_recognised(actor, enqueue, events) -> None:
    worker = await actor()
    job = await enqueue()
    (claimed,) = await worker.claim()
    assert await worker.finish(claimed) == FinishOutcome.OK
    assert await worker.finish(claimed) == FinishOutcome.AGAIN
    assert len(await events(job)) == 1


async def test_another_worker_cannot_finish(actor, enqueue, events) -> None:
    worker, other = await actor("w1"), await actor("w2")
    job = await enqueue()
    (claimed,) = await worker.claim()
    assert await other.finish(claimed) == FinishOutcome.FENCED
    assert await events(job) == []
    assert await worker.finish(claimed) == FinishOutcome.OK
    assert await other.finish(claimed) == FinishOutcome.FENCED


async def test_an_older_try_of_the_same_worker_cannot_finish(actor, enqueue, queue) -> None:
    worker = await actor()
    job = await enqueue()
    (old,) = await worker.claim()
    await queue.release(worker.id, [job.id])
    (new,) = await worker.claim()
    assert await worker.finish(old) == FinishOutcome.FENCED
    assert await worker.finish(new) == FinishOutcome.OK
    assert await worker.finish(old) == FinishOutcome.FENCED


async def test_an_unknown_job_cannot_be_finished(actor, enqueue, redis, keys) -> None:
    worker = await actor()
    job = await enqueue()
    (claimed,) = await worker.claim()
    await redis.delete(keys.job(job.id))
    assert await worker.finish(claimed) == FinishOutcome.FENCED


async def test_a_waiting_job_is_cancelled_at_once(
    actor, enqueue, events, queue: Queue, views: PoolViews
) -> None:
    job = await enqueue()
    assert await queue.cancel(job.id) == JobState.CANCELLED
    (end,) = await events(job)
    assert (end.state, end.error.code) == (JobState.CANCELLED, ErrorCode.CANCELLED)
    assert (await views.job_and_result(job.id))[1].error == end.error
    assert await (await actor()).claim() == []


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


async def test_a_job_that_is_done_before_the_cancel_arrives_is_done(
    actor, enqueue, events, queue: Queue
) -> None:
    worker = await actor()
    job = await enqueue()
    (claimed,) = await worker.claim()
    await queue.cancel(job.id)
    assert await worker.finish(claimed) == FinishOutcome.OK
    assert [event.state for event in await events(job)] == [JobState.DONE]
    assert await queue.cancel(job.id) == JobState.DONE


async def test_cancelling_an_unknown_job_returns_none(queue: Queue) -> None:
    assert await queue.cancel("0" * 32) is None


@pytest.fixture
async def running_cancelled(actor, enqueue, queue: Queue) -> tuple[Actor, Job]:
    """A worker and its running job; the worker has not read yet that the job is cancelled."""
    worker = await actor()
    job = await enqueue()
    await worker.claim()
    await queue.cancel(job.id)
    return worker, job


async def test_a_cancelled_job_whose_worker_died_ends_as_cancelled(
    running_cancelled: tuple[Actor, Job], actor, events
) -> None:
    worker, job = running_cancelled
    await worker.die()
    assert [event.state for event in await events(job)] == [JobState.CANCELLED]
    assert await (await actor("w2")).claim() == []


async def test_a_cancelled_job_that_is_released_ends_as_cancelled(
    running_cancelled: tuple[Actor, Job], events, queue: Queue
) -> None:
    worker, job = running_cancelled
    assert await queue.release(worker.id, [job.id]) == 1
    assert [event.state for event in await events(job)] == [JobState.CANCELLED]


async def test_a_released_job_goes_back_to_its_old_place(
    actor, enqueue, events, queue: Queue
) -> None:
    worker = await actor()
    jobs = [await enqueue() for _ in range(3)]
    claimed = await worker.claim(sequences=2)
    assert await queue.release(worker.id, [jobs[0].id, jobs[2].id]) == 1
    assert await events(jobs[0]) == [Retry(job=jobs[0].id, try_=1)]
    again = await worker.claim()
    assert [c.job.id for c in again] == [jobs[0].id, jobs[2].id]
    assert [(c.try_, c.suspect) for c in again] == [(2, False), (1, False)]
    for c in [claimed[1], *again]:
        assert await worker.finish(c) == FinishOutcome.OK


async def test_releasing_a_job_for_ever_never_makes_it_a_suspect(actor, enqueue, queue) -> None:
    worker = await actor()
    job = await enqueue()
    for try_ in range(1, 8):
        (claimed,) = await worker.claim()
        assert (claimed.try_, claimed.suspect) == (try_, False)
        await queue.release(worker.id, [job.id])


async def test_a_worker_that_leaves_releases_its_jobs_and_leaves_no_trace(
    actor, enqueue, events, queue: Queue, views: PoolViews, redis, keys
) -> None:
    worker = await actor(holds=["a@1", "b@1"])
    job = await enqueue()
    await worker.claim()
    await worker.claim()
    await queue.leave(worker.id)
    assert await events(job) == [Retry(job=job.id, try_=1)]
    assert await views.workers() == []
    left = [key.decode() async for key in redis.scan_iter(match=f"{keys.prefix}*")]
    assert not [key for key in left if worker.id in key or ":on:" in key]
    assert await redis.zcard(keys.idle) == 0
    (claimed,) = await (await actor("w2")).claim()
    assert (claimed.try_, claimed.suspect) == (2, False)


async def test_a_claim_whose_reply_was_lost_is_reconciled(actor, enqueue, events, queue) -> None:
    worker = await actor()
    kept = await enqueue()
    (claimed,) = await worker.claim()
    lost = await enqueue()
    await worker.claim()
    assert (await queue.beat(worker.id, lease_ms=6000, info=INFO)).booked == 2
    assert await queue.reconcile(worker.id, [kept.id], grace_ms=NEVER_MS) == 0
    assert await queue.reconcile(worker.id, [kept.id], grace_ms=0) == 1
    assert await events(lost) == [Retry(job=lost.id, try_=1)]
    assert (await queue.beat(worker.id, lease_ms=6000, info=INFO)).booked == 1
    (again,) = await worker.claim()
    assert (again.job.id, again.try_, again.suspect) == (lost.id, 2, False)
    assert await worker.finish(claimed) == FinishOutcome.OK


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


async def test_the_checkpoints_of_a_job_that_is_done_are_deleted(
    actor, enqueue, queue: Queue, redis, keys
) -> None:
    worker, job = await actor(), await enqueue()
    (claimed,) = await worker.claim()
    await queue.publish(worker.id, {}, [tokens(job, 0, [1])])
    await worker.finish(claimed)
    assert await redis.exists(keys.checkpoints(job.id)) == 0


async def test_a_tenant_is_forgotten_only_when_none_of_its_jobs_waits(
    actor, enqueue, queue: Queue, redis, keys
) -> None:
    worker = await actor()
    await enqueue(tenant="t")
    assert await redis.pttl(keys.tenant("t")) == -1
    await worker.claim()
    assert await redis.pttl(keys.tenant("t")) > 80_000_000
    await worker.die()
    assert await redis.pttl(keys.tenant("t")) == -1


async def test_a_sweep_expires_overdue_jobs_that_no_worker_claims(
    enqueue, events, queue: Queue, views: PoolViews, redis, keys
) -> None:
    overdue = [await enqueue(version, deadline_ms=0) for version in ("a@1", "a@1", "b@1")]
    fresh = await enqueue("a@1")
    assert (await queue.reap()).expired == 3
    for job in overdue:
        (end,) = await events(job)
        assert (end.state, end.error.code) == (JobState.EXPIRED, ErrorCode.DEADLINE_EXCEEDED)
        assert (await views.job_and_result(job.id))[1].error == end.error
    assert (await views.counts()).waiting == 1
    assert await redis.zrange(keys.ready, 0, -1) == [b"a@1"]
    assert (await views.job(fresh.id)).position == 1
    assert (await queue.reap()).expired == 0


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
