"""Jobs that move to another worker: published tokens are never lost, repeated or changed."""

from typing import Any

import pytest
from queue_support import Actor, tokens
from scripted_engine import BASE, ScriptedEngine, expected_ids, expected_text
from worker_support import Client, check_answers, has_workers, until

from shared.errors import ErrorCode, RedisUnavailable
from shared.protocol.events import Tokens
from shared.protocol.ids import WorkerId
from shared.protocol.jobs import Job, JobState
from shared.protocol.queue_replies import Claim, Mail, MailKind
from shared.protocol.results import FinishReason
from shared.store.jobs.queue import Queue


async def publish_as_earlier_worker(client: Client, job: Job, *events: Tokens) -> None:
    """Claim the job as another worker, publish `events` and release the job."""
    earlier = Actor(client.queue, client.redis, client.keys, "earlier", [BASE.version])
    await earlier.register()
    assert await earlier.claim_ids() == [job.id]
    await client.queue.publish(earlier.id, {client.api: events})
    await client.queue.leave(earlier.id)


def first_tokens(
    job: Job, count: int, *, text: str | None = None, choice: int = 0, **fields: Any
) -> Tokens:
    """Return an event with the first `count` tokens of a choice."""
    ids = expected_ids(1, choice, count, BASE.version)
    shown = expected_text(ids) if text is None else text
    return tokens(job, 0, ids, shown, choice=choice, **fields)


def whole_characters(job: Job) -> Tokens:
    """Return an event with as many tokens, below 8, as end with a complete character."""
    events = [first_tokens(job, count) for count in range(8)]
    return [event for event in events if "\ufffd" not in event.text[-1:]][-1]


async def test_a_resumed_answer_continues_after_the_published_tokens(client: Client) -> None:
    job = await client.send(max_tokens=20, n=2)
    await publish_as_earlier_worker(client, job, whole_characters(job))
    async with client.worker() as worker:
        end = await client.end_of(job)
        counts = worker.parts.jobs.first_tokens.counts
        assert sum(counts) == 0, "the earlier worker has counted the time to the first token"
        await client.end_of(await client.send(max_tokens=12, n=3))
        assert sum(worker.parts.jobs.first_tokens.counts) == 1
    check_answers(client, [job])
    assert end.try_ == 2
    assert end.usage.completion_tokens == 40


async def test_finished_choices_do_not_run_again(client: Client) -> None:
    job = await client.send(max_tokens=9, n=2)
    await publish_as_earlier_worker(
        client, job, first_tokens(job, 9, choice=1, finish=FinishReason.LENGTH)
    )
    async with client.worker():
        result = await client.result_of(job)
    (added,) = client.engine.added_ids
    assert added.startswith(job.id)
    assert added.endswith(":0")
    assert [len(choice.ids) for choice in result.choices] == [9, 9]


@pytest.mark.parametrize("is_finished", [True, False])
async def test_an_answer_with_all_its_tokens_ends_without_the_engine(
    client: Client, is_finished: bool
) -> None:
    job = await client.send(max_tokens=4)
    text = first_tokens(job, 4).text
    if is_finished:
        published = first_tokens(job, 4, finish=FinishReason.LENGTH)
    else:  # an incomplete character at its end isn't published
        published = first_tokens(job, 4, text=text.rstrip("\ufffd"))
    await publish_as_earlier_worker(client, job, published)
    async with client.worker():
        result = await client.result_of(job)
    assert client.engine.added_ids == []
    (choice,) = result.choices
    assert (result.state, choice.finish) == (JobState.DONE, FinishReason.LENGTH)
    assert choice.text == client.answers_of(job)[0][1] == text
    assert result.usage.completion_tokens == 4


async def test_a_published_text_that_does_not_match_its_tokens_is_never_continued(
    client: Client,
) -> None:
    job = await client.send(max_tokens=20)
    await publish_as_earlier_worker(client, job, first_tokens(job, 5, text="something else"))
    async with client.worker():
        end = await client.end_of(job)
    assert end.state is JobState.FAILED
    assert end.error.code is ErrorCode.RESUME_DIVERGED


async def test_a_draining_worker_finishes_running_jobs_and_claims_no_more(client: Client) -> None:
    async with client.worker() as worker:
        running = await client.send(max_tokens=100)
        await client.until_published(running, 2)
        worker.stop()
        waiting = await client.send(seed=2)
        end = await client.end_of(running)
        await until(lambda: has_workers(client.views, 0))
    assert (end.state, end.try_) == (JobState.DONE, 1)
    assert (await client.views.job(waiting.id)).state is JobState.QUEUED


@pytest.mark.parametrize("is_stopped_twice", [False, True])
async def test_a_worker_without_drain_time_or_stopped_twice_releases_its_jobs(
    client: Client, is_stopped_twice: bool
) -> None:
    async with client.worker(drain_s=30 if is_stopped_twice else 0) as worker:
        job = await client.send(max_tokens=300, n=2)
        await client.until_published(job, 20)
        worker.stop()
        if is_stopped_twice:
            worker.stop()
        await until(lambda: has_workers(client.views, 0), within_s=20)
    assert (await client.views.job(job.id)).state is JobState.QUEUED
    async with client.worker(ScriptedEngine()):
        end = await client.end_of(job)
    assert (end.state, end.try_) == (JobState.DONE, 2)
    check_answers(client, [job])


async def test_a_claim_whose_reply_is_lost_is_reconciled(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, lost = Queue.claim, []

    async def losing(queue: Queue, *args: object, **kwargs: object) -> Claim:
        taken: Claim = await claim(queue, *args, **kwargs)  # type: ignore[arg-type]
        if taken.jobs and not lost:
            lost.extend(taken.jobs)
            raise RedisUnavailable("scripted to lose the reply")
        return taken

    monkeypatch.setattr(Queue, "claim", losing)
    async with client.worker(lease_ms=600):
        end = await client.end_of(await client.send())
    assert len(lost) == 1
    assert (end.state, end.try_) == (JobState.DONE, 2)


LONG = 800


async def owner_of(client: Client, job: Job) -> WorkerId:
    view = await client.views.job(job.id)
    assert view
    assert view.worker
    return view.worker


async def test_a_job_whose_claim_redis_lost_is_published_by_one_claim_only(client: Client) -> None:
    """After a failover the same worker may claim the job again, under the same try."""
    async with client.worker(lease_ms=6000):
        job = await client.send(max_tokens=LONG)
        await client.until_published(job, 20)
        wid = await owner_of(client, job)
        async with client.redis.pipeline(transaction=True) as rollback:
            rollback.zrem(client.keys.owned(wid), job.id)
            rollback.hset(client.keys.job(job.id), mapping={"state": "queued", "try": 0})
            rollback.hdel(client.keys.job(job.id), "owner")
            rollback.zadd(client.keys.queue(job.version), {job.id: 0})
            rollback.zadd(client.keys.ready, {job.version: 0})
            rollback.hincrby(client.keys.counters, "waiting", 1)
            rollback.delete(client.keys.checkpoints(job.id))
            rollback.rpush(client.keys.mailbox(wid), "job")
            await rollback.execute()
        await client.end_of(job)
        (choice,) = (await client.views.job_and_result(job.id))[1].choices
    assert list(choice.ids) == expected_ids(job.sampling.seed, 0, LONG, job.version)
    assert choice.text == expected_text(choice.ids)
    assert client.engine.max_concurrent == 1
    assert len(set(client.engine.added_ids)) == 2


async def test_a_job_without_publications_is_dropped_at_the_next_beat(client: Client) -> None:
    client.engine.may_step.clear()
    async with client.worker(lease_ms=600):
        job = await client.send()
        await until(lambda: client.engine.requests)
        await client.redis.zrem(client.keys.owned(await owner_of(client, job)), job.id)
        engine_has_dropped = until(lambda: not client.engine.requests)
        client.engine.may_step.set()
        await engine_has_dropped


async def test_a_cancellation_whose_message_is_lost_still_ends_the_job(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = Queue.wait

    async def losing(queue: Queue, wid: WorkerId, *, timeout_s: float) -> Mail | None:
        mail = await wait(queue, wid, timeout_s=timeout_s)
        return None if mail and mail.kind is MailKind.CANCEL else mail

    monkeypatch.setattr(Queue, "wait", losing)
    async with client.worker():
        job = await client.send(max_tokens=LONG)
        await client.until_published(job, 3)
        await client.queue.cancel(job.id)
        end = await client.end_of(job)
    assert (end.state, end.usage.completion_tokens < LONG) == (JobState.CANCELLED, True)
