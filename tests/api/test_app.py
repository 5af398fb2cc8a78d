"""The app as a whole: separate metrics, and outages of Redis."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from api_support import (
    RunningApp,
    ScriptedWorker,
    client_of,
    register_models,
    running_app,
    sse_text,
    until,
)
from structlog.testing import capture_logs

from api.app import create_app
from ops.local.embedded_redis import EmbeddedRedis, start_redis
from shared.errors import RedisUnavailable
from shared.protocol.results import FinishReason
from shared.settings import ApiSettings
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import connect
from shared.store.redis.keys import Keys

BODY = {"model": "extract", "messages": [{"role": "user", "content": "hi"}], "stream": True}
URL = "/v1/chat/completions"
STOP = FinishReason.STOP


async def test_two_apps_in_one_process_have_separate_metrics(settings: ApiSettings) -> None:
    async with client_of(create_app(settings)) as one, client_of(create_app(settings)) as two:
        await one.get("/health")
        assert 'endpoint="/health"' in (await one.get("/metrics")).text
        assert 'endpoint="/health"' not in (await two.get("/metrics")).text


class BreakableRedis:
    """Redis server that a test can kill or freeze. It keeps its data on disk."""

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


@pytest.fixture(autouse=True)
def patient_front_ends() -> None:
    """Here, a front end waits for Redis no longer than in operation."""


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[BreakableRedis]:
    server = BreakableRedis(tmp_path)
    yield server
    server.stop()


@pytest.fixture
async def broken_server(own_redis: BreakableRedis) -> AsyncIterator[RunningApp]:
    async with running_app(ApiSettings(redis_url=own_redis.url, disconnect_grace_s=0)) as running:
        yield running


@pytest.fixture
async def broken_http(broken_server: RunningApp) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=broken_server.url, timeout=30) as client:
        yield client


@pytest.fixture
async def broken_worker(own_redis: BreakableRedis) -> AsyncIterator[ScriptedWorker]:
    client = connect(own_redis.url)
    await register_models(Registry(client, Keys("main")))
    yield await ScriptedWorker.start(Queue(client, Keys("main")))
    await client.aclose()


async def test_during_an_outage_new_requests_get_a_503_and_a_running_stream_continues_afterwards(
    own_redis: BreakableRedis, broken_http: httpx.AsyncClient, broken_worker: ScriptedWorker
) -> None:
    with capture_logs() as logs:
        running = asyncio.create_task(broken_http.post(URL, json=BODY))
        job = await broken_worker.take()
        await broken_worker.admit(job)
        await broken_worker.tokens(job, 0, (1,), "before")
        own_redis.kill()
        refused = await broken_http.post(URL, json=BODY)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        await until(lambda: "redis_lost" in [entry["event"] for entry in logs])
        own_redis.restart()
        await broken_worker.tokens(job, 1, (2,), " after", STOP)
        await broken_worker.finish(job)
        assert sse_text(await running) == "before after"
    events = [entry["event"] for entry in logs]
    assert (events.count("redis_lost"), events.count("redis_back")) == (1, 1)


async def test_while_redis_hangs_new_requests_get_a_503_and_a_running_answer_arrives_afterwards(
    own_redis: BreakableRedis, broken_http: httpx.AsyncClient, broken_worker: ScriptedWorker
) -> None:
    running = asyncio.create_task(broken_http.post(URL, json=BODY))
    job = await broken_worker.take()
    await broken_worker.admit(job)
    own_redis.freeze()
    refused = await broken_http.post(URL, json=BODY)  # the server stays frozen meanwhile
    assert refused.status_code == 503
    own_redis.thaw()
    await broken_worker.answer(job, "hello")
    assert sse_text(await running) == "hello"


async def test_disconnecting_during_an_outage_cancels_the_job_afterwards(
    own_redis: BreakableRedis, broken_http: httpx.AsyncClient, broken_worker: ScriptedWorker
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
