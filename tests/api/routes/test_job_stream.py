"""GET /v1/jobs/{job_id}/stream: streams that continue on any front end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest
from api_support import ScriptedWorker, error_of
from chat_stream import admitted
from queue_support import eventually
from sse_events import EventReader, SseEvent, answer_in, sse_events
from weather_tool import ANSWER, BODY, URL

from shared.errors import ErrorCode, JobError
from shared.protocol.jobs import ClaimedJob
from shared.protocol.results import Choice, FinishReason
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

STOP = FinishReason.STOP
STREAM = {**BODY, "stream": True}
BACKGROUND = {**STREAM, "stream": False, "background": True}


@pytest.fixture
def slow_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make followers read stored tokens only at their start."""
    monkeypatch.setattr("api.follow.follower.SILENCE_S", 60)


@asynccontextmanager
async def opened(
    http: httpx.AsyncClient, method: str, url: str, **options: Any
) -> AsyncIterator[EventReader]:
    async with http.stream(method, url, **options) as response:
        assert response.status_code == 200, await response.aread()
        yield EventReader(response)


@asynccontextmanager
async def begun(
    http: httpx.AsyncClient, worker: ScriptedWorker, *ids: int, text: str, checkpoint: bool = True
) -> AsyncIterator[tuple[EventReader, ClaimedJob]]:
    """Open a stream whose first event with tokens has been read. Yields its reader and its job."""
    taking = asyncio.create_task(admitted(worker))
    async with opened(http, "POST", URL, json=STREAM) as reader:
        job = await taking
        await worker.tokens(job, 0, ids, text, checkpoint=checkpoint)
        await reader.until(text)
        yield reader, job


async def resumed(http: httpx.AsyncClient, job: ClaimedJob, after: str | None) -> list[SseEvent]:
    """Return the events of the job's stream after one of its events."""
    params = {"after": after} if after is not None else {}
    reply = await http.get(f"/v1/jobs/{job.job.id}/stream", params=params)
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["x-lorikeet-job"] == job.job.id
    return sse_events(reply.text)


async def answer_all(worker: ScriptedWorker, job: ClaimedJob, *texts: str, size: int = 7) -> None:
    """Publish a choice for each text, in pieces of `size` characters. Each character is a token."""
    for choice, text in enumerate(texts):
        for start in range(0, len(text), size):
            ids = range(start, min(start + size, len(text)))
            finish = STOP if start + size >= len(text) else None
            part = text[start : start + size]
            await worker.tokens(job, start, ids, part, finish, choice=choice, checkpoint=True)
    choices = [Choice(text=text, finish=STOP, ids=tuple(range(len(text)))) for text in texts]
    await worker.finish(job, *choices)


@pytest.mark.parametrize(
    ("url", "body"),
    [
        (URL, {**STREAM, "n": 2, "stream_options": {"include_usage": True}}),
        ("/v1/completions", {"model": "extract", "prompt": ["a", "b"], "stream": True}),
    ],
)
async def test_after_any_event_of_a_done_job_exactly_the_rest_follows_on_another_front_end(
    http: httpx.AsyncClient,
    other: httpx.AsyncClient,
    worker: ScriptedWorker,
    url: str,
    body: dict[str, Any],
) -> None:
    request, job = await worker.sent(http.post(url, json=body))
    await answer_all(worker, job, ANSWER, "no call 🙂")
    whole = sse_events((await request).text)
    expected = answer_in(whole)
    for count, event in enumerate(whole[:-1], 1):
        assert answer_in([*whole[:count], *await resumed(other, job, event.id)]) == expected
    assert answer_in(await resumed(other, job, None)) == expected


@pytest.mark.usefixtures("slow_reads")
async def test_a_stream_continues_elsewhere_while_its_job_runs(
    http: httpx.AsyncClient, other: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    async with begun(http, worker, 1, text="one") as (first, job):
        last = first.events[-1].id
        assert last
    again = f"/v1/jobs/{job.job.id}/stream"
    async with opened(other, "GET", again, headers={"Last-Event-ID": last}) as second:
        await worker.tokens(job, 1, (2,), " two", checkpoint=True)
        await second.until(" two")
        await worker.tokens(job, 2, (3,), " three", STOP)
        await worker.finish(job, Choice(text="one two three", finish=STOP, ids=(1, 2, 3)))
        await second.rest()
    answer = answer_in([*first.events, *second.events])
    assert (answer[0, "text"], answer[0, "finish"]) == ("one two three", "stop")


@pytest.mark.usefixtures("slow_reads")
async def test_several_clients_can_follow_one_job(
    http: httpx.AsyncClient, other: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    async with begun(http, worker, 1, text="one") as (first, job):
        url = f"/v1/jobs/{job.job.id}/stream"
        async with opened(http, "GET", url) as second, opened(other, "GET", url) as third:
            for reader in (second, third):
                await reader.until("one")
            await worker.tokens(job, 1, (2,), " two", STOP)
            await worker.finish(job, Choice(text="one two", finish=STOP, ids=(1, 2)))
            for reader in (first, second, third):
                await reader.rest()
                assert answer_in(reader.events)[0, "text"] == "one two"


@pytest.mark.usefixtures("slow_reads")
async def test_tokens_that_redis_lost_are_awaited(
    http: httpx.AsyncClient,
    other: httpx.AsyncClient,
    worker: ScriptedWorker,
    redis: Redis,
    keys: Keys,
) -> None:
    async with begun(http, worker, 1, 2, text="one two", checkpoint=False) as (first, job):
        last = first.events[-1].id
    again = f"/v1/jobs/{job.job.id}/stream"
    async with opened(other, "GET", again, params={"after": last}) as second:
        await eventually(partial(redis.hexists, keys.followers, job.job.id))
        await worker.tokens(job, 0, (1,), "one")
        await worker.tokens(job, 1, (2,), " two")
        await worker.tokens(job, 2, (3,), " three", STOP)
        await worker.finish(job, Choice(text="one two three", finish=STOP, ids=(1, 2, 3)))
        await second.rest()
    assert answer_in([*first.events, *second.events])[0, "text"] == "one two three"


async def test_a_stream_whose_beginning_was_lost_and_generated_anew_does_not_continue(
    http: httpx.AsyncClient, other: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    async with begun(http, worker, 1, 2, text="one two", checkpoint=False) as (first, job):
        last = first.events[-1].id
    again = f"/v1/jobs/{job.job.id}/stream"
    async with opened(other, "GET", again, params={"after": last}) as second:
        await worker.tokens(job, 0, (1,), "one more", checkpoint=True)
        error, done = await second.rest()
    assert error.json["error"]["code"] == "resume_diverged"
    assert done.data == "[DONE]"
    assert (await other.get(f"/v1/jobs/{job.job.id}")).json()["state"] == "running"


async def test_a_front_end_that_the_pool_forgot_still_gets_every_token(
    http: httpx.AsyncClient,
    other: httpx.AsyncClient,
    worker: ScriptedWorker,
    redis: Redis,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.follow.follower.SILENCE_S", 0.1)
    accepted = (await http.post(URL, json=BACKGROUND)).json()
    job = await worker.take()
    async with opened(other, "GET", f"/v1/jobs/{accepted['id']}/stream") as reader:
        await worker.tokens(job, 0, (1,), "one", checkpoint=True)
        await reader.until("one")
        await redis.delete(keys.followers)
        await worker.tokens(job, 1, (2,), " two", STOP, checkpoint=True)
        await reader.until(" two")
        await worker.finish(job, Choice(text="one two", finish=STOP, ids=(1, 2)))
        await reader.rest()
    assert answer_in(reader.events)[0, "text"] == "one two"


async def test_a_failed_job_has_its_tokens_and_then_its_error(
    http: httpx.AsyncClient, other: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    accepted = (await http.post(URL, json=BACKGROUND)).json()
    job = await worker.take()
    assert job.job.id == accepted["id"]
    await worker.tokens(job, 0, (1,), "begun", checkpoint=True)
    await worker.fail(job, JobError(code=ErrorCode.INTERNAL, message="broken"))
    opening, text, error, done = await resumed(other, job, None)
    assert "assistant" in opening.data
    assert "begun" in text.data
    assert (error.json["error"]["message"], done.data) == ("broken", "[DONE]")
    assert [event.data for event in await resumed(other, job, text.id)] == [error.data, done.data]
    assert await resumed(other, job, error.id) == [done]


BAD_IDS = [
    *("x", "start.9", "1", "1-123", "1-0123456G", "1.2-01234567", "1,2-01234567", "-1-01234567"),
    *("f~0:5*1-01234567", "5~0:4*1-01234567", "5~1:6*1-01234567", "1" * 10 + "-01234567"),
    *("5~0:6*0-01234567" + "0" * 9000, "5 -01234567", "END", "ff-01234567"),
]


async def test_a_malformed_id_is_a_400(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    accepted = (await http.post(URL, json=BACKGROUND)).json()
    for bad in BAD_IDS:
        reply = await http.get(f"/v1/jobs/{accepted['id']}/stream", params={"after": bad})
        assert error_of(reply) == (400, "invalid_value", "after"), bad[:80]


async def test_the_query_parameter_overrides_the_header(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    _, job = await worker.serve(http.post(URL, json=STREAM))
    url = f"/v1/jobs/{job.job.id}/stream"
    bad = {"Last-Event-ID": "x"}
    assert error_of(await http.get(url, headers=bad)) == (400, "invalid_value", "Last-Event-ID")
    reply = await http.get(url, headers=bad, params={"after": "end"})
    assert [event.data for event in sse_events(reply.text)] == ["[DONE]"]
    whole = await http.get(url, headers={"Last-Event-ID": "end"}, params={"after": ""})
    assert answer_in(sse_events(whole.text))[0, "text"] == "hello"


async def test_a_deleted_answer_is_an_error(
    http: httpx.AsyncClient, worker: ScriptedWorker, redis: Redis, keys: Keys
) -> None:
    await http.post(URL, json=BACKGROUND)
    job = await worker.take()
    await worker.answer(job)
    await redis.delete(keys.result(job.job.id))
    error, done = await resumed(http, job, None)
    assert (error.json["error"]["code"], done.data) == ("job_not_found", "[DONE]")
