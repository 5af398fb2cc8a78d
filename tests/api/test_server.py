"""The front end as a process: start, errors and signals."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import httpx
import pytest
from api_processes import ROOT, api_process, is_healthy
from api_support import ScriptedWorker, free_port, sse_text, until
from chat_stream import admitted
from sse_events import sse_events
from structlog.testing import capture_logs

from api.jobs.retention import warn_if_retention_is_limited
from api.server import run_api
from ops.local.embedded_redis import EmbeddedRedis
from shared.errors import RedisUnavailable, SettingsError
from shared.protocol.jobs import JobState
from shared.settings import ApiSettings
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

START_S = 60
"""Time for the start of a process on a busy machine."""
BODY = {"model": "extract", "messages": [{"role": "user", "content": "hi"}], "stream": True}


def test_without_redis_the_start_fails_with_an_error() -> None:
    settings = ApiSettings(redis_url="redis://127.0.0.1:1/0", port=0)
    with pytest.raises(RedisUnavailable, match=r"no Redis at redis://127\.0\.0\.1:1/0"):
        run_api(settings)


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
        assert process.wait(10) == 0
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
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
            client.stream("GET", "/v1/pool/events") as states,
        ):
            lines = states.aiter_lines()
            while await anext(lines) != "event: pool":
                pass
            request = asyncio.create_task(client.post("/v1/chat/completions", json=BODY))
            job = await worker.take()
            await worker.admit(job)
            os.kill(process.pid, signal.SIGTERM)
            async with asyncio.timeout(25):  # the drain time is 30 s
                assert [line async for line in lines]
            await until(lambda: not is_healthy(port))
            await worker.answer(job, "hello")
            assert sse_text(await request) == "hello"
        assert process.wait(10) == 0


async def test_an_unfinished_answer_ends_after_the_drain_time_and_its_job_goes_on(
    redis_url: str,
    pool: str,
    worker: ScriptedWorker,
    views: PoolViews,
    redis: Redis,
    keys: Keys,
) -> None:
    port, drain_s = free_port(), 0.5
    with api_process(redis_url, pool, port, drain_s) as process:
        await until(lambda: is_healthy(port), START_S)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            request = asyncio.create_task(client.post("/v1/chat/completions", json=BODY))
            job = await admitted(worker)
            start = time.monotonic()
            os.kill(process.pid, signal.SIGTERM)
            last = sse_events((await request).text)[-1]
            assert time.monotonic() - start >= drain_s
        assert (last.json["error"]["code"], last.retry) == ("server_stopping", "1000")
        assert process.wait(10) == 0
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
