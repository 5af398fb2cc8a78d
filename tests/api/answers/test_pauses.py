"""Streams that pause: the comments that they have, and the official clients that read them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_support import RunningApp, ScriptedWorker, until
from sse_events import sse_events

from api.answers import delivery
from api.answers.delivery import comment, keep_alive
from api.follow.reply_hub import ReplyHub
from ops.lab.chaos.load.requests import Question
from ops.lab.chaos.load.sdks.available import AvailableSdks
from ops.lab.chaos.load.sdks.process import has_node_clients, start_node
from ops.lab.chaos.load.sdks.sdk import Api, Part, Sdk, SdkError, SdkRequest, fields_of
from shared.errors import ErrorCode, JobError, RedisUnavailable
from shared.protocol.ids import JobId
from shared.protocol.jobs import ClaimedJob
from shared.protocol.results import Choice, FinishReason
from shared.store.views.pool_views import PoolViews, Wait

NUM_COMMENTS = 3
APIS = list(Api)
NODE = [pytest.mark.slow, pytest.mark.skipif(not has_node_clients(), reason="make clients")]
each_client = pytest.mark.parametrize(
    ("language", "api"),
    [
        *(("for Python", api) for api in APIS),
        *(pytest.param("for Node", api, marks=NODE) for api in APIS),
    ],
)


@pytest.fixture
def comments(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """All comments that were sent. Streams have one after a silence of 20 ms."""
    sent: list[bytes] = []

    async def recorded(views: PoolViews, job_id: JobId) -> bytes:
        sent.append(await keep_alive(views, job_id))
        return sent[-1]

    monkeypatch.setattr(delivery, "KEEP_ALIVE_S", 0.02)
    monkeypatch.setattr(delivery, "keep_alive", recorded)
    return sent


async def pause(comments: list[bytes], num: int = NUM_COMMENTS) -> None:
    """Wait until `num` further comments were sent."""
    num_sent = len(comments)
    await until(lambda: len(comments) >= num_sent + num)


def asked(api: Api, url: str) -> SdkRequest:
    is_chat = api is not Api.COMPLETIONS
    question = Question(model="extract", prompt="hi", is_chat=is_chat, seed=1, n=1, num_tokens=4)
    return SdkRequest(api=api, url=url, fields=fields_of(api, question), headers={})


class ClientStream:
    """A stream that an official client reads."""

    def __init__(self, sdk: Sdk, request: SdkRequest) -> None:
        self.parts: list[Part] = []
        self.reading = asyncio.create_task(self._read(sdk, request))

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts)

    async def begin(self, worker: ScriptedWorker) -> ClaimedJob:
        """Publish the first token, and wait until the client has it."""
        job = await worker.begin("one", checkpoint=True)
        await until(lambda: self.text == "one")
        return job

    async def _read(self, sdk: Sdk, request: SdkRequest) -> None:
        async for part in sdk.stream(request):
            self.parts.append(part)


@pytest.fixture
async def stream(
    language: str, api: Api, server: RunningApp, comments: list[bytes], tmp_path: Path
) -> AsyncIterator[ClientStream]:
    """A stream of the official client of `api` for Python or Node."""
    log = tmp_path / "node.log"
    available = AvailableSdks(await start_node(log) if language == "for Node" else None)
    sdk = next(each for each in reversed(available.all) if api in each.apis)
    yield ClientStream(sdk, asked(api, server.url))
    await available.close()


@each_client
async def test_a_stream_with_pauses_arrives_whole(
    stream: ClientStream, worker: ScriptedWorker, comments: list[bytes]
) -> None:
    await pause(comments)  # before the first token
    job = await stream.begin(worker)
    for index, text in enumerate((" two", " three"), 1):
        await pause(comments)
        await worker.tokens(job, index, (index,), text)
    await until(lambda: stream.text == "one two three")
    await worker.tokens(job, 3, (4,), "", FinishReason.LENGTH)
    await pause(comments)  # before the end
    await worker.finish(job, Choice(text="one two three", finish=FinishReason.LENGTH, ids=()))
    await stream.reading
    assert (stream.text, stream.parts[0].job) == ("one two three", job.job.id)
    assert [part.finish for part in stream.parts if part.finish] == ["length"]


@each_client
async def test_a_job_that_fails_after_a_pause_is_an_error_of_the_client(
    stream: ClientStream, worker: ScriptedWorker, comments: list[bytes]
) -> None:
    job = await stream.begin(worker)
    await pause(comments, 1)
    await worker.fail(job, JobError(code=ErrorCode.INTERNAL, message="it broke"))
    with pytest.raises(SdkError, match="it broke"):
        await stream.reading
    assert stream.text == "one"


@each_client
async def test_a_stopping_front_end_is_an_error_of_the_client(
    stream: ClientStream, worker: ScriptedWorker, server: RunningApp, comments: list[bytes]
) -> None:
    await stream.begin(worker)
    await pause(comments, 1)
    server.pool.part(ReplyHub).stop()
    with pytest.raises(SdkError, match="this server stops"):
        await stream.reading
    assert stream.text == "one"


@pytest.mark.parametrize("api", APIS)
async def test_only_the_end_of_an_event_is_a_blank_line(
    http: httpx.AsyncClient, worker: ScriptedWorker, comments: list[bytes], api: Api
) -> None:
    """Also in the stream of a job, and after a position in it."""
    fields = dict(asked(api, "").fields)
    paths = {Api.CHAT: "chat/completions"}
    request = asyncio.create_task(http.post(f"/v1/{paths.get(api, api)}", json=fields))
    job = await worker.begin("one", checkpoint=True)
    start = asyncio.create_task(http.get(f"/v1/jobs/{job.job.id}/stream"))
    await pause(comments, 2 * NUM_COMMENTS)
    await worker.tokens(job, 1, (2,), " two", FinishReason.STOP, checkpoint=True)
    await worker.finish(job, Choice(text="one two", finish=FinishReason.STOP, ids=(1, 2)))
    for text in ((await request).text, (await start).text):
        blocks = text.removesuffix("\n\n").split("\n\n")
        assert ": keep-alive\n" in text
        assert all("\ndata: " in f"\n{block}" for block in blocks), blocks
        assert sse_events(text)


PLAIN = b": keep-alive\n"


@pytest.mark.parametrize(
    ("wait", "text"),
    [
        (
            Wait(position=3, num_waiting=12, estimated_s=39.2),
            "waiting, position 3 of 12, about 40 s",
        ),
        (Wait(position=1, num_waiting=1, estimated_s=None), "waiting, position 1 of 1"),
        (None, "keep-alive"),
    ],
)
def test_a_comment_states_the_place_and_the_estimated_wait(wait: Wait | None, text: str) -> None:
    assert comment(wait) == f": {text}\n".encode()


async def never(job_id: JobId) -> None:
    await asyncio.Event().wait()


async def fail(job_id: JobId) -> None:
    raise RedisUnavailable


@pytest.mark.parametrize("wait", [never, fail])
async def test_a_comment_does_not_wait_for_redis_and_is_plain_without_it(
    views: PoolViews, monkeypatch: pytest.MonkeyPatch, wait: Any
) -> None:
    monkeypatch.setattr(views, "wait", wait)
    async with asyncio.timeout(60):
        assert await keep_alive(views, JobId("a")) == PLAIN
