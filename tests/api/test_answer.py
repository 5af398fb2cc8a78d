"""How the end of a job reaches its client, before and after the job was admitted."""

import asyncio
import json

import httpx
import openai
import pytest
from api_support import RunningApp, ScriptedWorker, running_app, until
from openai.types.chat import ChatCompletionMessageParam

from api import answer
from shared.errors import ErrorCode, JobError
from shared.protocol.ids import JobId
from shared.protocol.jobs import JobState
from shared.protocol.results import FinishReason
from shared.settings import ApiSettings
from shared.store.queue import Queue
from shared.store.registry import Registry

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
BODY = {"model": "extract", "messages": MESSAGES}
TOO_LONG = JobError(code=ErrorCode.CONTEXT_LENGTH_EXCEEDED, message="too long", param="messages")
URL = "/v1/chat/completions"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_before_the_job_is_admitted_is_an_http_status(
    http: httpx.AsyncClient, worker: ScriptedWorker, stream: bool
) -> None:
    request = asyncio.create_task(http.post(URL, json={**BODY, "stream": stream}))
    job = await worker.take()
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
    request = asyncio.create_task(http.post(URL, json={**BODY, "stream": True}))
    job = await worker.take()
    await worker.admit(job)
    await worker.tokens(job, 0, (1,), "begun")
    await worker.fail(job, JobError(code=ErrorCode.INTERNAL, message="broken"))
    response = await request
    assert response.status_code == 200
    *_, text, error, done, rest = response.text.split("\n\n")
    assert "begun" in text
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "internal_error"
    assert (done, rest) == ("data: [DONE]", "")


async def test_openais_client_raises_an_error_from_a_stream(
    client: openai.AsyncOpenAI, worker: ScriptedWorker
) -> None:
    request = asyncio.create_task(
        client.chat.completions.create(model="extract", messages=MESSAGES, stream=True)
    )
    job = await worker.take()
    await worker.admit(job)
    await worker.fail(job, JobError(code=ErrorCode.INTERNAL, message="broken"))
    with pytest.raises(openai.APIError, match="broken"):
        async for _ in await request:
            pass


async def test_an_error_after_admission_is_still_a_status_of_a_whole_answer(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    request = asyncio.create_task(http.post(URL, json=BODY))
    job = await worker.take()
    await worker.admit(job)
    await worker.tokens(job, 0, (1,), "begun")
    await worker.fail(job, JobError(code=ErrorCode.POISON_JOB, message="twice"), JobState.DEAD)
    response = await request
    assert response.status_code == 500
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_that_passes_is_a_504_and_cancels_the_job_even_without_a_worker(
    settings: ApiSettings, registry: Registry, queue: Queue, stream: bool
) -> None:
    hurried = settings.model_copy(update={"deadline_s": 0.3})
    async with running_app(hurried) as running, httpx.AsyncClient(base_url=running.url) as http:
        response = await http.post(URL, json={**BODY, "stream": stream})
        assert response.status_code == 504
        assert response.json()["error"]["code"] == "deadline_exceeded"
        job_id = JobId(response.headers["x-lorikeet-job"])
        while (await http.get(f"/v1/jobs/{job_id}")).json()["state"] == "queued":
            pass
    view = await queue.job_view(job_id)
    assert view is not None
    assert view.error is not None
    assert (view.state, view.error.code) == (JobState.CANCELLED, ErrorCode.DEADLINE_EXCEEDED)


async def test_a_deadline_that_passes_in_a_stream_is_an_event(
    settings: ApiSettings, worker: ScriptedWorker
) -> None:
    hurried = settings.model_copy(update={"deadline_s": 0.5})
    async with running_app(hurried) as running, httpx.AsyncClient(base_url=running.url) as http:
        request = asyncio.create_task(http.post(URL, json={**BODY, "stream": True}))
        job = await worker.take()
        await worker.admit(job)
        response = await request
        assert "deadline_exceeded" in response.text
        assert (await worker.mail()).job == job.job.id


async def test_a_full_queue_is_a_429_that_says_when_to_come_back(
    settings: ApiSettings, registry: Registry
) -> None:
    small = settings.model_copy(update={"max_waiting": 1})
    async with running_app(small) as running, httpx.AsyncClient(base_url=running.url) as http:
        first = asyncio.create_task(http.post(URL, json=BODY))
        await until_waiting(running, 1)
        response = await http.post(URL, json=BODY)
        assert response.status_code == 429
        assert response.headers["retry-after"] == "1"
        assert response.json()["error"]["type"] == "rate_limit_error"
        assert response.json()["error"]["code"] == "queue_full"
        first.cancel()
        await until_waiting(running, 0)


async def until_waiting(running: RunningApp, number: int) -> None:
    async with asyncio.timeout(10):
        while (await running.context.queue.counts()).waiting != number:
            pass


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_while_its_job_waits_cancels_it(
    server: RunningApp, http: httpx.AsyncClient, stream: bool
) -> None:
    request = asyncio.create_task(http.post(URL, json={**BODY, "stream": stream}))
    await until_waiting(server, 1)
    request.cancel()
    await until_waiting(server, 0)
    await until(lambda: 'status="499"' in server.context.metrics.exposition(None).decode())


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_while_its_job_runs_stops_the_worker(
    http: httpx.AsyncClient, worker: ScriptedWorker, stream: bool
) -> None:
    request = asyncio.create_task(http.post(URL, json={**BODY, "stream": stream}))
    job = await worker.take()
    await worker.admit(job)
    await worker.tokens(job, 0, (1,), "begun")
    request.cancel()
    mail = await worker.mail()
    assert (mail.kind, mail.job) == ("cancel", job.job.id)


async def test_openais_client_closing_its_stream_stops_the_worker(
    client: openai.AsyncOpenAI, worker: ScriptedWorker
) -> None:
    request = asyncio.create_task(
        client.chat.completions.create(model="extract", messages=MESSAGES, stream=True)
    )
    job = await worker.take()
    await worker.admit(job)
    stream = await request
    await anext(stream)
    await stream.close()
    assert (await worker.mail()).job == job.job.id


async def test_a_stream_with_nothing_to_show_sends_its_headers_and_comments(
    http: httpx.AsyncClient, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer, "KEEP_ALIVE_S", 0.05)
    async with http.stream("POST", URL, json={**BODY, "stream": True}) as response:
        assert response.status_code == 200
        lines = response.aiter_lines()
        assert await anext(lines) == ": keep-alive"
        job = await worker.take()
        await worker.fail(job, TOO_LONG)
        rest = [line async for line in lines if line not in ("", ": keep-alive")]
    assert "context_length_exceeded" in rest[0]
    assert rest[1] == "data: [DONE]"


async def test_comments_do_not_disturb_openais_client(
    client: openai.AsyncOpenAI, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer, "KEEP_ALIVE_S", 0.02)
    stream = await client.chat.completions.create(
        model="extract",
        messages=MESSAGES,
        stream=True,
    )
    await worker.answer(await worker.take(), "hello")
    texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(texts) == "hello"


async def test_a_finish_reason_of_length_is_told(
    client: openai.AsyncOpenAI, worker: ScriptedWorker
) -> None:
    request = asyncio.create_task(
        client.chat.completions.create(model="extract", messages=MESSAGES)
    )
    job = await worker.take()
    await worker.tokens(job, 0, (1,), "cut", FinishReason.LENGTH)
    await worker.finish(job)
    assert (await request).choices[0].finish_reason == "length"
