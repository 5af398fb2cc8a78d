"""Answers that fail, move, or wait, whose client leaves, and that a stopping server ends."""

import asyncio

import httpx
import pytest
from api_support import RunningApp, ScriptedWorker, error_of, sse_text, until, waiting_job
from chat_stream import admitted
from queue_support import eventually
from raw_client import BODY, CHAT, STREAM, with_settings
from sse_events import EventReader, answer_in, sse_events

from api.answers import delivery
from api.answers.parts import Following
from api.follow.reply_hub import ReplyHub
from api.metrics.metrics import Metrics
from shared.errors import ErrorCode, JobError, RedisUnavailable
from shared.protocol.ids import JobId
from shared.protocol.jobs import JobState
from shared.protocol.results import Choice, FinishReason
from shared.store.jobs.queue import Queue
from shared.store.jobs.sweep import RETURN_MS
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

TOO_LONG = JobError(code=ErrorCode.CONTEXT_LENGTH_EXCEEDED, message="too long", param="messages")
KEY = {"Idempotency-Key": "k"}
STOP = FinishReason.STOP


class Abandoned:
    """The jobs that are cancelled unless a client comes back."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self.redis, self.keys = redis, keys

    async def has(self, job_id: JobId) -> bool:
        return await self.redis.zscore(self.keys.abandoned, job_id) is not None

    async def gets(self, job_id: JobId) -> float:
        """Wait until a job is abandoned, and return the seconds until it is cancelled."""
        at_ms = await eventually(lambda: self.redis.zscore(self.keys.abandoned, job_id))
        seconds, _ = await self.redis.time()
        return float(at_ms / 1000 - seconds)

    async def loses(self, job_id: JobId) -> None:
        """Wait until a job isn't abandoned any more."""

        async def is_kept() -> bool:
            return not await self.has(job_id)

        await eventually(is_kept)


@pytest.fixture
def abandoned(redis: Redis, keys: Keys) -> Abandoned:
    return Abandoned(redis, keys)


@with_settings(disconnect_grace_s=0.2)
async def test_after_the_grace_period_the_job_is_cancelled(
    http: httpx.AsyncClient, worker: ScriptedWorker, queue: Queue
) -> None:
    request, job = await worker.sent(http.post(CHAT, json=BODY, headers=KEY))
    request.cancel()

    async def is_cancelled() -> bool:
        await queue.reap()
        return job.job.id in (await worker.queue.publish(worker.id, {})).cancelled

    await eventually(is_cancelled)


@with_settings(disconnect_grace_s=600)
async def test_only_a_client_that_can_come_back_has_a_grace_period(
    http: httpx.AsyncClient, worker: ScriptedWorker, abandoned: Abandoned
) -> None:
    request, kept = await worker.sent(http.post(CHAT, json=BODY, headers=KEY))
    request.cancel()
    await abandoned.gets(kept.job.id)
    request, lost = await worker.sent(http.post(CHAT, json=BODY))
    request.cancel()
    assert (await worker.mail()).job == lost.job.id


async def test_a_client_that_comes_back_keeps_its_job(
    http: httpx.AsyncClient, other: httpx.AsyncClient, worker: ScriptedWorker, abandoned: Abandoned
) -> None:
    request = asyncio.create_task(http.post(CHAT, json=STREAM))
    job = await admitted(worker)
    request.cancel()
    await abandoned.gets(job.job.id)
    async with other.stream("GET", f"/v1/jobs/{job.job.id}/stream") as response:
        await abandoned.loses(job.job.id)
        await worker.answer(job, "hello")
        assert answer_in(await EventReader(response).rest())[0, "text"] == "hello"


@with_settings(disconnect_grace_s=0)
async def test_a_job_is_kept_until_its_last_client_leaves(
    http: httpx.AsyncClient,
    server: RunningApp,
    worker: ScriptedWorker,
) -> None:
    requests = [asyncio.create_task(http.post(CHAT, json=BODY, headers=KEY)) for _ in range(3)]
    job = await worker.take()
    inboxes = server.pool.part(ReplyHub)._inboxes
    await until(lambda: len(inboxes.get(job.job.id, ())) == 3)
    for request in requests[:2]:
        request.cancel()
    await until(lambda: len(inboxes[job.job.id]) == 1)
    await worker.answer(job, "hello")
    assert (await requests[2]).json()["choices"][0]["message"]["content"] == "hello"


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("headers", [{}, KEY])
async def test_a_request_that_redis_may_have_lost_is_cancelled_unless_it_can_be_sent_again(
    http: httpx.AsyncClient,
    server: RunningApp,
    worker: ScriptedWorker,
    views: PoolViews,
    abandoned: Abandoned,
    headers: dict[str, str],
    background: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = {**BODY, "background": background}
    accept = server.pool.part(Queue).enqueue
    accepted = []

    async def accept_but_fail(*args: object, **options: object) -> None:
        accepted.append(await accept(*args, **options))  # type: ignore[arg-type]
        raise RedisUnavailable("no reply")

    with monkeypatch.context() as patched:
        patched.setattr(server.pool.part(Queue), "enqueue", accept_but_fail)
        reply = await http.post(CHAT, json=body, headers=headers)
    job_id = accepted[0].id
    assert error_of(reply) == (503, "service_unavailable", None)
    assert reply.headers["x-lorikeet-job"] == job_id
    if not headers:

        async def is_cancelled() -> bool:
            view = await views.job(job_id)
            return view is not None and view.state is JobState.CANCELLED

        await eventually(is_cancelled)
        return
    if not background:
        await abandoned.gets(job_id)
    again, job = await worker.serve(http.post(CHAT, json=body, headers=headers))
    assert (job.job.id, again.headers["idempotent-replayed"]) == (job_id, "true")


async def test_a_stopping_server_hands_its_streams_to_their_clients(
    http: httpx.AsyncClient,
    other: httpx.AsyncClient,
    server: RunningApp,
    worker: ScriptedWorker,
    abandoned: Abandoned,
) -> None:
    taking = asyncio.create_task(admitted(worker))
    async with http.stream("POST", CHAT, json=STREAM) as response:
        job = await taking
        await worker.tokens(job, 0, (1,), "one", checkpoint=True)
        first = EventReader(response)
        text = await first.until("one")
        server.pool.part(ReplyHub).stop()
        last = await first.next()
        assert await first.next() is None
    assert last is not None
    assert (last.id, last.retry) == (text.id, "1000")
    assert last.json["error"]["code"] == "server_stopping"
    assert last.json["error"]["type"] == "server_error"
    assert await abandoned.gets(job.job.id) > RETURN_MS / 1000 - 5
    url = f"/v1/jobs/{job.job.id}/stream"
    headers = {"Last-Event-ID": last.id or ""}
    async with other.stream("GET", url, headers=headers) as response:
        await abandoned.loses(job.job.id)
        await worker.tokens(job, 1, (2,), " two", STOP, checkpoint=True)
        await worker.finish(job, Choice(text="one two", finish=STOP, ids=(1, 2)))
        rest = await EventReader(response).rest()
    assert answer_in([*first.events[:-1], *rest])[0, "text"] == "one two"


@pytest.mark.parametrize("body", [BODY, STREAM])
async def test_an_answer_that_has_not_started_when_the_server_stops_is_a_503(
    http: httpx.AsyncClient,
    other: httpx.AsyncClient,
    server: RunningApp,
    worker: ScriptedWorker,
    abandoned: Abandoned,
    body: dict[str, object],
) -> None:
    request, job = await worker.sent(http.post(CHAT, json=body, headers=KEY))
    server.pool.part(ReplyHub).stop()
    reply = await request
    assert error_of(reply) == (503, "server_stopping", None)
    assert reply.headers["x-lorikeet-job"] == job.job.id
    assert int(reply.headers["retry-after"]) > 0
    assert "x-should-retry" not in reply.headers
    assert await abandoned.gets(job.job.id) > RETURN_MS / 1000 - 5
    again = asyncio.create_task(other.post(CHAT, json=body, headers=KEY))
    await abandoned.loses(job.job.id)
    await worker.answer(job, "hello")
    assert (await again).headers["x-lorikeet-job"] == job.job.id
    assert "llo" in (await again).text


async def test_a_stream_that_continues_is_interrupted_with_the_id_of_its_client(
    other: httpx.AsyncClient, server: RunningApp, http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    accepted = await http.post(CHAT, json={**BODY, "background": True})
    async with http.stream("GET", f"{accepted.headers['location']}/stream") as response:
        server.pool.part(ReplyHub).stop()
        (last,) = await EventReader(response).rest()
    assert (last.id, last.json["error"]["code"]) == ("start.0", "server_stopping")
    job = await worker.take()
    await worker.answer(job, "hello")
    reply = await other.get(f"{accepted.headers['location']}/stream", params={"after": last.id})
    assert sse_text(reply) == "hello"


@pytest.mark.parametrize(
    ("headers", "fields"),
    [({"X-Lorikeet-On-Disconnect": "continue"}, {}), ({}, {"background": True})],
)
async def test_a_stopping_server_does_not_abandon_a_job_that_keeps_running(
    http: httpx.AsyncClient,
    server: RunningApp,
    worker: ScriptedWorker,
    abandoned: Abandoned,
    redis: Redis,
    keys: Keys,
    headers: dict[str, str],
    fields: dict[str, object],
) -> None:
    request, job = await worker.sent(http.post(CHAT, json={**STREAM, **fields}, headers=headers))
    server.pool.part(ReplyHub).stop()
    await request
    await server.pool.part(Following).cancels.finish()
    assert await redis.hget(keys.job(job.job.id), "gone") == b"1"
    assert not await abandoned.has(job.job.id)


async def test_a_client_that_leaves_the_server_it_came_back_to_after_a_stop_ends_its_job(
    http: httpx.AsyncClient,
    other: httpx.AsyncClient,
    server: RunningApp,
    worker: ScriptedWorker,
    abandoned: Abandoned,
) -> None:
    request, job = await worker.sent(http.post(CHAT, json=STREAM))
    server.pool.part(ReplyHub).stop()
    await request
    await abandoned.gets(job.job.id)
    async with other.stream("GET", f"/v1/jobs/{job.job.id}/stream"):
        await abandoned.loses(job.job.id)
    assert await abandoned.gets(job.job.id) < RETURN_MS / 1000 / 2


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_before_the_job_is_admitted_is_an_http_status(
    http: httpx.AsyncClient, worker: ScriptedWorker, stream: bool
) -> None:
    request, job = await worker.sent(http.post(CHAT, json={**BODY, "stream": stream}))
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
    request = asyncio.create_task(http.post(CHAT, json=STREAM))
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
    request = asyncio.create_task(http.post(CHAT, json=BODY))
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
    response = await http.post(CHAT, json={**BODY, "stream": stream})
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
    request = asyncio.create_task(http.post(CHAT, json=STREAM))
    job = await admitted(worker)
    assert "deadline_exceeded" in (await request).text
    assert (await worker.mail()).job == job.job.id


@with_settings(disconnect_grace_s=0)
@pytest.mark.parametrize("stream", [False, True])
async def test_disconnecting_cancels_a_waiting_job(
    server: RunningApp, http: httpx.AsyncClient, stream: bool
) -> None:
    request = asyncio.create_task(http.post(CHAT, json={**BODY, "stream": stream}))
    await waiting_job(server)
    request.cancel()

    async def has_left() -> bool:
        return not (await server.pool.views.counts()).waiting

    await eventually(has_left)
    await until(lambda: 'status="499"' in server.pool.part(Metrics).exposition(None).decode())


async def test_a_stream_without_chunks_sends_its_headers_and_comments(
    http: httpx.AsyncClient, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "KEEP_ALIVE_S", 0.05)
    async with http.stream("POST", CHAT, json=STREAM) as response:
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
async def second(queue: Queue, worker: ScriptedWorker) -> ScriptedWorker:
    return await ScriptedWorker.start(queue)


async def test_events_that_a_worker_publishes_after_releasing_the_job_are_dropped(
    http: httpx.AsyncClient, queue: Queue, worker: ScriptedWorker, second: ScriptedWorker
) -> None:
    request, job = await worker.sent(http.post(CHAT, json=STREAM))
    await worker.tokens(job, 0, (1,), "one")
    await queue.release(worker.id, [job.job.id])
    await worker.tokens(job, 1, (9,), " late")
    moved = await second.take()
    await second.tokens(moved, 1, (2,), " two", STOP)
    await second.finish(moved)
    assert sse_text(await request) == "one two"


async def test_a_worker_that_diverges_ends_the_stream_and_is_counted(
    http: httpx.AsyncClient,
    server: RunningApp,
    queue: Queue,
    worker: ScriptedWorker,
    second: ScriptedWorker,
) -> None:
    request, job = await worker.sent(http.post(CHAT, json=STREAM))
    await worker.tokens(job, 0, (1, 2), "one")
    await queue.release(worker.id, [job.job.id])
    moved = await second.take()
    await second.tokens(moved, 1, (9,), "other")
    response = await request
    assert sse_text(response) == "one"
    assert "resume_diverged" in response.text
    assert response.text.endswith("data: [DONE]\n\n")
    assert (await second.mail()).job == job.job.id
    await until(
        lambda: b"lorikeet_resume_diverged_total 1.0" in server.pool.part(Metrics).exposition(None)
    )
