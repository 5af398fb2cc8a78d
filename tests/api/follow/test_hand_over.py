"""A job that changes hands, and events that are lost, seen from the client."""

import asyncio

import httpx
import pytest
from api_support import RunningApp, ScriptedWorker, sse_text, until

from shared.protocol.results import FinishReason
from shared.store.queue import Queue

BODY = {"model": "extract", "messages": [{"role": "user", "content": "hi"}], "stream": True}
URL = "/v1/chat/completions"
STOP = FinishReason.STOP


@pytest.fixture
async def other(queue: Queue, worker: ScriptedWorker) -> ScriptedWorker:
    return await ScriptedWorker.start(queue)


async def test_a_stream_goes_on_with_the_next_worker_where_the_first_one_stopped(
    http: httpx.AsyncClient, queue: Queue, worker: ScriptedWorker, other: ScriptedWorker
) -> None:
    request = asyncio.create_task(http.post(URL, json=BODY))
    job = await worker.take()
    await worker.admit(job)
    await worker.tokens(job, 0, (1,), "one")
    await queue.release(worker.id, [job.job.id])
    moved = await other.take()
    assert (moved.job.id, moved.try_) == (job.job.id, 2)
    await other.admit(moved)
    await other.tokens(moved, 1, (2,), " two", STOP)
    await other.finish(moved)
    assert sse_text(await request) == "one two"


async def test_what_a_worker_publishes_after_it_gave_the_job_up_is_not_shown(
    http: httpx.AsyncClient, queue: Queue, worker: ScriptedWorker, other: ScriptedWorker
) -> None:
    request = asyncio.create_task(http.post(URL, json=BODY))
    job = await worker.take()
    await worker.tokens(job, 0, (1,), "one")
    await queue.release(worker.id, [job.job.id])
    await worker.tokens(job, 1, (9,), " late")
    moved = await other.take()
    await other.tokens(moved, 1, (2,), " two", STOP)
    await other.finish(moved)
    assert sse_text(await request) == "one two"


async def test_a_worker_that_contradicts_what_was_shown_ends_the_stream_and_is_counted(
    http: httpx.AsyncClient,
    server: RunningApp,
    queue: Queue,
    worker: ScriptedWorker,
    other: ScriptedWorker,
) -> None:
    request = asyncio.create_task(http.post(URL, json=BODY))
    job = await worker.take()
    await worker.tokens(job, 0, (1, 2), "one")
    await queue.release(worker.id, [job.job.id])
    moved = await other.take()
    await other.tokens(moved, 1, (9,), "other")
    response = await request
    assert sse_text(response) == "one"
    assert "resume_diverged" in response.text
    assert response.text.endswith("data: [DONE]\n\n")
    assert (await other.mail()).job == job.job.id
    await until(
        lambda: b"lorikeet_resume_diverged_total 1.0" in server.context.metrics.exposition(None)
    )


async def test_tokens_that_were_lost_on_the_way_come_from_the_checkpoints(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    request = asyncio.create_task(http.post(URL, json=BODY))
    job = await worker.take()
    await worker.tokens(job, 0, (1,), "a", checkpoint=True)
    await worker.tokens(job, 1, (2, 3), "bc", is_lost=True, checkpoint=True)
    await worker.tokens(job, 3, (4,), "d", STOP)
    await worker.finish(job)
    assert sse_text(await request) == "abcd"
