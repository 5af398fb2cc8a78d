"""Answers whose client leaves and comes back, and answers that a stopping server ends."""

import asyncio

import httpx
import pytest
from api_support import RunningApp, ScriptedWorker, error_of, sse_text, until
from chat_stream import MESSAGES, admitted
from queue_support import eventually
from raw_client import with_settings
from sse_events import EventReader, answer_in

from api.answers.parts import Following
from api.follow.reply_hub import ReplyHub
from shared.errors import RedisUnavailable
from shared.protocol.ids import JobId
from shared.protocol.jobs import JobState
from shared.protocol.results import Choice, FinishReason
from shared.store.jobs.queue import Queue
from shared.store.jobs.sweep import RETURN_MS
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

URL = "/v1/chat/completions"
BODY = {"model": "extract", "messages": MESSAGES}
STREAM = {**BODY, "stream": True}
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
    request, job = await worker.sent(http.post(URL, json=BODY))
    request.cancel()

    async def is_cancelled() -> bool:
        await queue.reap()
        return job.job.id in (await worker.queue.publish(worker.id, {})).cancelled

    await eventually(is_cancelled)


async def test_a_client_that_comes_back_keeps_its_job(
    http: httpx.AsyncClient, other: httpx.AsyncClient, worker: ScriptedWorker, abandoned: Abandoned
) -> None:
    request = asyncio.create_task(http.post(URL, json=STREAM))
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
    requests = [asyncio.create_task(http.post(URL, json=BODY, headers=KEY)) for _ in range(3)]
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
        reply = await http.post(URL, json=body, headers=headers)
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
    again, job = await worker.serve(http.post(URL, json=body, headers=headers))
    assert (job.job.id, again.headers["idempotent-replayed"]) == (job_id, "true")


async def test_a_stopping_server_hands_its_streams_to_their_clients(
    http: httpx.AsyncClient,
    other: httpx.AsyncClient,
    server: RunningApp,
    worker: ScriptedWorker,
    abandoned: Abandoned,
) -> None:
    taking = asyncio.create_task(admitted(worker))
    async with http.stream("POST", URL, json=STREAM) as response:
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
    request, job = await worker.sent(http.post(URL, json=body, headers=KEY))
    server.pool.part(ReplyHub).stop()
    reply = await request
    assert error_of(reply) == (503, "server_stopping", None)
    assert reply.headers["x-lorikeet-job"] == job.job.id
    assert int(reply.headers["retry-after"]) > 0
    assert "x-should-retry" not in reply.headers
    assert await abandoned.gets(job.job.id) > RETURN_MS / 1000 - 5
    again = asyncio.create_task(other.post(URL, json=body, headers=KEY))
    await abandoned.loses(job.job.id)
    await worker.answer(job, "hello")
    assert (await again).headers["x-lorikeet-job"] == job.job.id
    assert "llo" in (await again).text


async def test_a_stream_that_continues_is_interrupted_with_the_id_of_its_client(
    other: httpx.AsyncClient, server: RunningApp, http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    accepted = await http.post(URL, json={**BODY, "background": True})
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
    request, job = await worker.sent(http.post(URL, json={**STREAM, **fields}, headers=headers))
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
    request, job = await worker.sent(http.post(URL, json=STREAM))
    server.pool.part(ReplyHub).stop()
    await request
    await abandoned.gets(job.job.id)
    async with other.stream("GET", f"/v1/jobs/{job.job.id}/stream"):
        await abandoned.loses(job.job.id)
    assert await abandoned.gets(job.job.id) < RETURN_MS / 1000 / 2
