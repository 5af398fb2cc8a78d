"""The official clients read streams that pause after their first tokens."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from api_support import RunningApp, ScriptedWorker, until
from sse_events import sse_events

from api.answers import delivery
from api.answers.delivery import keep_alive
from api.follow.reply_hub import ReplyHub
from ops.lab.chaos.load.requests import Question
from ops.lab.chaos.load.sdks.available import AvailableSdks
from ops.lab.chaos.load.sdks.process import has_node_clients, start_node
from ops.lab.chaos.load.sdks.sdk import Api, Part, Sdk, SdkError, SdkRequest, fields_of
from shared.errors import ErrorCode, JobError
from shared.protocol.ids import JobId
from shared.protocol.jobs import ClaimedJob
from shared.protocol.results import Choice, FinishReason
from shared.store.views.pool_views import PoolViews

NUM_COMMENTS = 3
APIS = list(Api)
PYTHON = [("for Python", api) for api in APIS]
NODE = [
    pytest.param(
        "for Node",
        api,
        marks=[pytest.mark.slow, pytest.mark.skipif(not has_node_clients(), reason="make clients")],
    )
    for api in APIS
]


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


@pytest.fixture
async def sdk(language: str, api: Api, tmp_path: Path) -> AsyncIterator[Sdk]:
    """The official client of `api` for Python or Node."""
    log = tmp_path / "node.log"
    available = AvailableSdks(await start_node(log) if language == "for Node" else None)
    yield next(each for each in reversed(available.all) if api in each.apis)
    await available.close()


def asked(api: Api, url: str) -> SdkRequest:
    is_chat = api is not Api.COMPLETIONS
    question = Question(model="extract", prompt="hi", is_chat=is_chat, seed=1, n=1, num_tokens=4)
    return SdkRequest(api=api, url=url, fields=fields_of(api, question), headers={})


async def read(sdk: Sdk, request: SdkRequest, parts: list[Part]) -> None:
    async for part in sdk.stream(request):
        parts.append(part)


def text_of(parts: list[Part]) -> str:
    return "".join(part.text for part in parts)


async def begun(worker: ScriptedWorker, parts: list[Part], text: str) -> ClaimedJob:
    """Publish the first token, and wait until the client has it."""
    job = await worker.begin(text, checkpoint=True)
    await until(lambda: text_of(parts) == text)
    return job


@pytest.mark.parametrize(("language", "api"), [*PYTHON, *NODE])
async def test_a_stream_with_pauses_arrives_whole(
    server: RunningApp,
    worker: ScriptedWorker,
    comments: list[bytes],
    sdk: Sdk,
    api: Api,
) -> None:
    parts: list[Part] = []
    reading = asyncio.create_task(read(sdk, asked(api, server.url), parts))
    await until(lambda: len(comments) >= NUM_COMMENTS)  # before the first token
    job = await begun(worker, parts, "one")
    for index, text in enumerate((" two", " three"), 1):
        num_sent = len(comments)
        await until(lambda num_sent=num_sent: len(comments) >= num_sent + NUM_COMMENTS)
        await worker.tokens(job, index, (index,), text)
    await until(lambda: text_of(parts) == "one two three")
    await worker.tokens(job, 3, (4,), "", FinishReason.LENGTH)
    num_sent = len(comments)
    await until(lambda: len(comments) >= num_sent + NUM_COMMENTS)  # before the end
    await worker.finish(job, Choice(text="one two three", finish=FinishReason.LENGTH, ids=()))
    await reading
    assert (text_of(parts), parts[0].job) == ("one two three", job.job.id)
    assert [part.finish for part in parts if part.finish] == ["length"]


@pytest.mark.parametrize(("language", "api"), [*PYTHON, *NODE])
async def test_a_job_that_fails_after_a_pause_is_an_error_of_the_client(
    server: RunningApp,
    worker: ScriptedWorker,
    comments: list[bytes],
    sdk: Sdk,
    api: Api,
) -> None:
    parts: list[Part] = []
    reading = asyncio.create_task(read(sdk, asked(api, server.url), parts))
    job = await begun(worker, parts, "one")
    num_sent = len(comments)
    await until(lambda: len(comments) > num_sent)
    await worker.fail(job, JobError(code=ErrorCode.INTERNAL, message="it broke"))
    with pytest.raises(SdkError, match="it broke"):
        await reading
    assert text_of(parts) == "one"


@pytest.mark.parametrize(("language", "api"), [*PYTHON, *NODE])
async def test_a_stopping_front_end_is_an_error_of_the_client(
    server: RunningApp,
    worker: ScriptedWorker,
    comments: list[bytes],
    sdk: Sdk,
    api: Api,
) -> None:
    parts: list[Part] = []
    reading = asyncio.create_task(read(sdk, asked(api, server.url), parts))
    await begun(worker, parts, "one")
    num_sent = len(comments)
    await until(lambda: len(comments) > num_sent)
    server.pool.part(ReplyHub).stop()
    with pytest.raises(SdkError, match="this server stops"):
        await reading
    assert text_of(parts) == "one"


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
    num_sent = len(comments)
    await until(lambda: len(comments) >= num_sent + 2 * NUM_COMMENTS)
    await worker.tokens(job, 1, (2,), " two", FinishReason.STOP, checkpoint=True)
    await worker.finish(job, Choice(text="one two", finish=FinishReason.STOP, ids=(1, 2)))
    for text in ((await request).text, (await start).text):
        blocks = text.removesuffix("\n\n").split("\n\n")
        assert ": keep-alive\n" in text
        assert all("\ndata: " in f"\n{block}" for block in blocks), blocks
        assert sse_events(text)
