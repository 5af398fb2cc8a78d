"""The front end as an app and as a process: start, outages of Redis, errors and signals."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from api_processes import ROOT, api_process, is_healthy
from api_support import (
    ScriptedWorker,
    client_of,
    free_port,
    register_models,
    running_app,
    sse_text,
    until,
)
from chat_stream import admitted
from raw_client import CHAT, STREAM
from sse_events import sse_events
from structlog.testing import capture_logs

from api.app import create_app
from api.server import run_api, warn_if_retention_is_limited
from ops.local.embedded_redis import EmbeddedRedis, start_redis
from shared.errors import RedisUnavailable, SettingsError
from shared.protocol.jobs import JobState
from shared.protocol.results import FinishReason
from shared.settings import ApiSettings
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis, connect
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

START_S = 60
"""Time for the start of a process on a busy machine."""


def test_the_error_for_a_port_in_use_names_the_port(redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"can't listen on 127.0.0.1:{port}"):
            run_api(ApiSettings(redis_url=redis_url, port=port))


async def test_a_front_end_warns_once_of_a_small_redis_and_an_interrupt_ends_it_cleanly(
    own_server: EmbeddedRedis, open_client: Callable[[str], Redis], pool: str
) -> None:
    await open_client(own_server.url).config_set("maxmemory", 100 * 2**20)
    port = free_port()
    with api_process(own_server.url, pool, port) as process:
        await until(lambda: is_healthy(port), START_S)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stdout is not None
        log = process.stdout.read()
        assert log.count("retain_mb_limited") == 1
        assert "api_stopped" in log


async def test_a_running_answer_is_finished_after_the_signal_and_streams_of_the_pool_end_at_once(
    redis_url: str, pool: str, worker: ScriptedWorker
) -> None:
    port = free_port()
    with api_process(redis_url, pool, port) as process:
        await until(lambda: is_healthy(port), START_S)
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
            client.stream("GET", "/v1/pool/events") as states,
        ):
            lines = states.aiter_lines()
            while await anext(lines) != "event: pool":
                pass
            request, job = await worker.sent(client.post(CHAT, json=STREAM))
            await worker.admit(job)
            os.kill(process.pid, signal.SIGTERM)
            async with asyncio.timeout(25):  # the drain time is 30 s
                assert [line async for line in lines]
            await until(lambda: not is_healthy(port))
            await worker.answer(job, "hello")
            assert sse_text(await request) == "hello"
        assert process.wait(60) == 0


@pytest.mark.slow
async def test_an_unfinished_answer_ends_after_the_drain_time_and_its_job_goes_on(
    redis_url: str, pool: str, worker: ScriptedWorker, views: PoolViews, redis: Redis, keys: Keys
) -> None:
    port, drain_s = free_port(), 0.5
    with api_process(redis_url, pool, port, drain_s) as process:
        await until(lambda: is_healthy(port), START_S)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            request = asyncio.create_task(client.post(CHAT, json=STREAM))
            job = await admitted(worker)
            start = time.monotonic()
            os.kill(process.pid, signal.SIGTERM)
            last = sse_events((await request).text)[-1]
            assert time.monotonic() - start >= drain_s
        assert (last.json["error"]["code"], last.retry) == ("server_stopping", "1000")
        assert process.wait(60) == 0
    view = await views.job(job.job.id)
    assert view is not None
    assert view.state is JobState.RUNNING
    assert await redis.zscore(keys.abandoned, job.job.id) is not None


def test_the_front_end_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, api.server; "
        "sys.exit(', '.join({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.stderr.strip() == ""


MIB = 2**20


@pytest.mark.parametrize(("max_memory_mb", "is_limited"), [(0, False), (200, False), (199, True)])
async def test_a_limit_that_redis_can_not_keep_is_logged_with_both_figures(
    own_server: EmbeddedRedis,
    open_client: Callable[[str], Redis],
    max_memory_mb: int,
    is_limited: bool,
) -> None:
    await open_client(own_server.url).config_set("maxmemory", max_memory_mb * MIB)
    with capture_logs() as logs:
        await warn_if_retention_is_limited(ApiSettings(redis_url=own_server.url, retain_mb=100))
    found = [(line["event"], line["retain_mb"], line["maxmemory_mb"]) for line in logs]
    assert found == ([("retain_mb_limited", 100, 199)] if is_limited else [])


async def test_two_apps_in_one_process_have_separate_metrics(settings: ApiSettings) -> None:
    async with client_of(create_app(settings)) as one, client_of(create_app(settings)) as two:
        await one.get("/health")
        assert 'endpoint="/health"' in (await one.get("/metrics")).text
        assert 'endpoint="/health"' not in (await two.get("/metrics")).text


class BreakableRedis:
    """Redis server that a test can kill or freeze. It keeps its data on disk."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.server: EmbeddedRedis = start_redis(directory)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.server.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.server.stop()

    def restart(self) -> None:
        self.server = start_redis(self._directory, port=self.server.port)


@pytest.fixture(autouse=True)
def patient_front_ends() -> None:
    """Here, a front end waits for Redis no longer than in operation."""


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[BreakableRedis]:
    redis = BreakableRedis(tmp_path)
    yield redis
    redis.server.stop()


@pytest.fixture
async def broken_http(own_redis: BreakableRedis) -> AsyncIterator[httpx.AsyncClient]:
    settings = ApiSettings(redis_url=own_redis.server.url, disconnect_grace_s=0)
    async with (
        running_app(settings) as running,
        httpx.AsyncClient(base_url=running.url, timeout=30) as client,
    ):
        yield client


@pytest.fixture
async def broken_worker(own_redis: BreakableRedis) -> AsyncIterator[ScriptedWorker]:
    client = connect(own_redis.server.url)
    await register_models(Registry(client, Keys("main")))
    yield await ScriptedWorker.start(Queue(client, Keys("main")))
    await client.aclose()


async def test_during_an_outage_new_requests_get_a_503_and_a_running_stream_continues_afterwards(
    own_redis: BreakableRedis, broken_http: httpx.AsyncClient, broken_worker: ScriptedWorker
) -> None:
    with capture_logs() as logs:
        running = asyncio.create_task(broken_http.post(CHAT, json=STREAM))
        job = await broken_worker.take()
        await broken_worker.admit(job)
        await broken_worker.tokens(job, 0, (1,), "before")
        own_redis.kill()
        refused = await broken_http.post(CHAT, json=STREAM)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        await until(lambda: "redis_lost" in [entry["event"] for entry in logs])
        own_redis.restart()
        await broken_worker.tokens(job, 1, (2,), " after", FinishReason.STOP)
        await broken_worker.finish(job)
        assert sse_text(await running) == "before after"
    events = [entry["event"] for entry in logs]
    assert (events.count("redis_lost"), events.count("redis_back")) == (1, 1)


async def test_while_redis_hangs_new_requests_get_a_503_and_a_running_answer_arrives_afterwards(
    own_redis: BreakableRedis, broken_http: httpx.AsyncClient, broken_worker: ScriptedWorker
) -> None:
    running = asyncio.create_task(broken_http.post(CHAT, json=STREAM))
    job = await broken_worker.take()
    await broken_worker.admit(job)
    own_redis.send(signal.SIGSTOP)
    refused = await broken_http.post(CHAT, json=STREAM)  # the server stays frozen meanwhile
    assert refused.status_code == 503
    own_redis.send(signal.SIGCONT)
    await broken_worker.answer(job, "hello")
    assert sse_text(await running) == "hello"


async def test_disconnecting_during_an_outage_cancels_the_job_afterwards(
    own_redis: BreakableRedis, broken_http: httpx.AsyncClient, broken_worker: ScriptedWorker
) -> None:
    running = asyncio.create_task(broken_http.post(CHAT, json=STREAM))
    job = await broken_worker.take()
    await broken_worker.admit(job)
    own_redis.kill()
    running.cancel()
    with pytest.raises(RedisUnavailable):
        await broken_worker.admit(job)
    own_redis.restart()
    mail = await broken_worker.mail()
    assert (mail.kind, mail.job) == ("cancel", job.job.id)
