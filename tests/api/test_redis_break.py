"""Redis goes away in the middle and comes back."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from api_support import (
    RunningApp,
    ScriptedWorker,
    register_models,
    running_app,
    sse_text,
    until,
)
from structlog.testing import capture_logs

from ops.local.embedded_redis import EmbeddedRedis, start_redis
from shared.errors import RedisUnavailable
from shared.protocol.results import FinishReason
from shared.settings import ApiSettings
from shared.store.connection import connect
from shared.store.keys import Keys
from shared.store.queue import Queue
from shared.store.registry import Registry

BODY = {"model": "extract", "messages": [{"role": "user", "content": "hi"}], "stream": True}
URL = "/v1/chat/completions"
STOP = FinishReason.STOP


class OwnRedis:
    """A server that the test may break; it keeps its data on disk."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._server: EmbeddedRedis = start_redis(directory)
        self.url = self._server.url

    def kill(self) -> None:
        os.kill(self._server.pid, signal.SIGKILL)
        self._server.stop()

    def restart(self) -> None:
        self._server = start_redis(self._directory, port=self._server.port)

    def freeze(self) -> None:
        os.kill(self._server.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._server.pid, signal.SIGCONT)

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    server = OwnRedis(tmp_path)
    yield server
    server.stop()


@pytest.fixture
async def broken_server(own_redis: OwnRedis) -> AsyncIterator[RunningApp]:
    async with running_app(ApiSettings(redis_url=own_redis.url)) as running:
        yield running


@pytest.fixture
async def broken_http(broken_server: RunningApp) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=broken_server.url, timeout=30) as client:
        yield client


@pytest.fixture
async def broken_worker(own_redis: OwnRedis) -> AsyncIterator[ScriptedWorker]:
    client = connect(own_redis.url)
    await register_models(Registry(client, Keys("main")))
    yield await ScriptedWorker.start(Queue(client, Keys("main")))
    await client.aclose()


async def test_a_running_stream_goes_on_when_redis_is_back_and_new_requests_get_a_503_meanwhile(
    own_redis: OwnRedis, broken_http: httpx.AsyncClient, broken_worker: ScriptedWorker
) -> None:
    with capture_logs() as logs:
        running = asyncio.create_task(broken_http.post(URL, json=BODY))
        job = await broken_worker.take()
        await broken_worker.admit(job)
        await broken_worker.tokens(job, 0, (1,), "before")
        own_redis.kill()
        start = time.monotonic()
        refused = await broken_http.post(URL, json=BODY)
        assert time.monotonic() - start < 4
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        await until(lambda: "redis_lost" in [entry["event"] for entry in logs])
        own_redis.restart()
        await broken_worker.tokens(job, 1, (2,), " after", STOP)
        await broken_worker.finish(job)
        assert sse_text(await running) == "before after"
    events = [entry["event"] for entry in logs]
    assert (events.count("redis_lost"), events.count("redis_back")) == (1, 1)


async def test_a_silent_redis_is_a_503_within_seconds_and_the_running_answer_comes_after_it(
    own_redis: OwnRedis, broken_http: httpx.AsyncClient, broken_worker: ScriptedWorker
) -> None:
    running = asyncio.create_task(broken_http.post(URL, json=BODY))
    job = await broken_worker.take()
    await broken_worker.admit(job)
    own_redis.freeze()
    start = time.monotonic()
    refused = await broken_http.post(URL, json=BODY)
    assert refused.status_code == 503
    assert time.monotonic() - start < 4
    own_redis.thaw()
    await broken_worker.answer(job, "hello")
    assert sse_text(await running) == "hello"


async def test_a_client_that_leaves_while_redis_is_away_cancels_its_job_afterwards(
    own_redis: OwnRedis, broken_http: httpx.AsyncClient, broken_worker: ScriptedWorker
) -> None:
    running = asyncio.create_task(broken_http.post(URL, json=BODY))
    job = await broken_worker.take()
    await broken_worker.admit(job)
    own_redis.kill()
    running.cancel()
    with pytest.raises(RedisUnavailable):
        await broken_worker.admit(job)
    own_redis.restart()
    mail = await broken_worker.mail()
    assert (mail.kind, mail.job) == ("cancel", job.job.id)


async def test_a_job_that_redis_forgot_ends_with_a_503(
    redis_url: str, settings: ApiSettings, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.follow.follower.SILENCE_S", 0.1)
    client = connect(redis_url)
    async with running_app(settings) as running, httpx.AsyncClient(base_url=running.url) as http:
        request = asyncio.create_task(http.post(URL, json={**BODY, "stream": False}))
        job = await worker.take()
        await client.delete(Keys(settings.pool).job(job.job.id))
        response = await request
    await client.aclose()
    assert response.status_code == 503
    assert "lost" in response.json()["error"]["message"]
