"""Errors, cancellation, keep-alive comments and resumption of answers."""

import asyncio

import httpx
import openai
import pytest
from api_support import RunningApp, ScriptedWorker, error_of, sse_text, until
from chat_stream import MESSAGES, admitted, admitted_stream
from raw_client import with_settings
from sse_events import sse_events

from api.answers import delivery
from api.metrics.metrics import Metrics
from shared.errors import ErrorCode, JobError
from shared.protocol.ids import JobId
from shared.protocol.jobs import JobState
from shared.protocol.results import FinishReason
from shared.store.jobs.queue import Queue
from shared.store.views.pool_views import PoolViews

BODY = {"model": "extract", "messages": MESSAGES}
STREAM = {**BODY, "stream": True}
STOP = FinishReason.STOP
TOO_LONG = JobError(code=ErrorCode.CONTEXT_LENGTH_EXCEEDED, message="too long", param="messages")
URL = "/v1/chat/completions"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_before_the_job_is_admitted_is_an_http_status(
    http: httpx.AsyncClient, worker: ScriptedWorker, stream: bool
) -> None:
    request, job = await worker.sent(http.post(URL, json={**BODY, "stream": stream}))
    await worker.fail(job, TOO_LONG)
    response = await request
    assert response.status_code == 400
    assert response.headers["x-lorikeet-job"] == job.job.id
    assert response.json()["error"] == {
        "message": "too long",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }


async def test_an_error_in_a_stream_is_an_event(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    request = asyncio.create_task(http.post(URL, json=STREAM))
    job = await admitted(worker)
    await worker.tokens(job, 0, (1,), "begun")
    await worker.fail(job, JobError(code=ErrorCode.INTERNAL, message="broken"))
    response = await request
    assert response.status_code == 200
    *_, text, error, done = sse_events(response.text)
    assert "begun" in text.data
    assert error.json["error"]["code"] == "internal_error"
    assert done.data == "[DONE]"


async def test_an_error_after_admission_is_a_status_if_the_answer_is_not_streamed(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    request = asyncio.create_task(http.post(URL, json=BODY))
    job = await admitted(worker)
    await worker.tokens(job, 0, (1,), "begun")
    await worker.fail(job, JobError(code=ErrorCode.POISON_JOB, message="twice"), JobState.DEAD)
    response = await request
    assert response.status_code == 500
    assert response.headers["x-should-retry"] == "false"


@with_settings(deadline_s=0.3)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_that_passes_is_a_504_and_cancels_the_job_even_without_a_worker(
    http: httpx.AsyncClient, views: PoolViews, stream: bool
) -> None:
    response = await http.post(URL, json={**BODY, "stream": stream})
    assert error_of(response) == (504, "deadline_exceeded", None)
    job_id = JobId(response.headers["x-lorikeet-job"])
    while (await http.get(f"/v1/jobs/{job_id}")).json()["state"] == "queued":
        pass
    view = await views.job(job_id)
    assert view is not None
    assert view.error is not None
    assert (view.state, view.error.code) == (JobState.CANCELLED, ErrorCode.DEADLINE_EXCEEDED)


@with_settings(deadline_s=0.5)
async def test_a_deadline_that_passes_in_a_stream_is_an_event(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    request = asyncio.create_task(http.post(URL, json=STREAM))
    job = await admitted(worker)
    assert "deadline_exceeded" in (await request).text
    assert (await worker.mail()).job == job.job.id


async def until_waiting(running: RunningApp, number: int) -> None:
    async with asyncio.timeout(10):
        while (await running.pool.views.counts()).waiting != number:
            pass


@with_settings(disconnect_grace_s=0)
@pytest.mark.parametrize("stream", [False, True])
async def test_disconnecting_cancels_a_waiting_job(
    server: RunningApp, http: httpx.AsyncClient, stream: bool
) -> None:
    request = asyncio.create_task(http.post(URL, json={**BODY, "stream": stream}))
    await until_waiting(server, 1)
    request.cancel()
    await until_waiting(server, 0)
    await until(lambda: 'status="499"' in server.pool.part(Metrics).exposition(None).decode())


@with_settings(disconnect_grace_s=0)
async def test_openais_client_closing_its_stream_stops_the_worker(
    client: openai.AsyncOpenAI, worker: ScriptedWorker
) -> None:
    stream, job = await admitted_stream(client, worker)
    await anext(stream)
    await stream.close()
    assert (await worker.mail()).job == job.job.id


async def test_a_stream_without_chunks_sends_its_headers_and_comments(
    http: httpx.AsyncClient, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "KEEP_ALIVE_S", 0.05)
    async with http.stream("POST", URL, json=STREAM) as response:
        assert response.status_code == 200
        lines = response.aiter_lines()
        assert await anext(lines) == ": waiting, position 1 of 1"
        job = await worker.take()
        while await anext(lines) != ": keep-alive":
            pass
        await worker.fail(job, TOO_LONG)
        rest = [line async for line in lines]
    error, done = sse_events("\n".join(rest))
    assert error.json["error"]["code"] == "context_length_exceeded"
    assert done.data == "[DONE]"


@pytest.fixture
async def other(queue: Queue, worker: ScriptedWorker) -> ScriptedWorker:
    return await ScriptedWorker.start(queue)


async def test_events_that_a_worker_publishes_after_releasing_the_job_are_dropped(
    http: httpx.AsyncClient, queue: Queue, worker: ScriptedWorker, other: ScriptedWorker
) -> None:
    request, job = await worker.sent(http.post(URL, json=STREAM))
    await worker.tokens(job, 0, (1,), "one")
    await queue.release(worker.id, [job.job.id])
    await worker.tokens(job, 1, (9,), " late")
    moved = await other.take()
    await other.tokens(moved, 1, (2,), " two", STOP)
    await other.finish(moved)
    assert sse_text(await request) == "one two"


async def test_a_worker_that_diverges_ends_the_stream_and_is_counted(
    http: httpx.AsyncClient,
    server: RunningApp,
    queue: Queue,
    worker: ScriptedWorker,
    other: ScriptedWorker,
) -> None:
    request, job = await worker.sent(http.post(URL, json=STREAM))
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
        lambda: b"lorikeet_resume_diverged_total 1.0" in server.pool.part(Metrics).exposition(None)
    )
