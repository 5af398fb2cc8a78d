"""The front end as a process: start, errors and signals."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from api_support import ScriptedWorker, free_port, sse_text, until

from api.server import run_api
from shared.errors import RedisUnavailable, SettingsError
from shared.settings import ApiSettings

ROOT = Path(__file__).parents[2]
BODY = {"model": "extract", "messages": [{"role": "user", "content": "hi"}], "stream": True}
RUN = """
import sys
from api.server import run_api
from shared.settings import ApiSettings
run_api(ApiSettings(redis_url=sys.argv[1], pool=sys.argv[2], port=int(sys.argv[3])))
"""


@contextmanager
def api_process(*args: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, *args], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with process:
        yield process
        process.kill()


def test_without_redis_the_start_fails_with_an_error() -> None:
    settings = ApiSettings(redis_url="redis://127.0.0.1:1/0", port=0)
    with pytest.raises(RedisUnavailable, match=r"no Redis at redis://127\.0\.0\.1:1/0"):
        run_api(settings)


def test_the_error_for_a_port_in_use_names_the_port(redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"can't listen on 127.0.0.1:{port}"):
            run_api(ApiSettings(redis_url=redis_url, port=port))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_cleanly(
    redis_url: str, pool: str, number: signal.Signals
) -> None:
    port = free_port()
    with api_process(redis_url, pool, str(port)) as process:
        await until(lambda: is_healthy(port))
        os.kill(process.pid, number)
        assert process.wait(10) == 0
        assert process.stdout is not None
        assert "api_stopped" in process.stdout.read()


async def test_a_running_answer_is_finished_after_the_signal(
    redis_url: str, pool: str, worker: ScriptedWorker
) -> None:
    port = free_port()
    with api_process(redis_url, pool, str(port)) as process:
        await until(lambda: is_healthy(port))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            request = asyncio.create_task(client.post("/v1/chat/completions", json=BODY))
            job = await worker.take()
            await worker.admit(job)
            os.kill(process.pid, signal.SIGTERM)
            await until(lambda: not is_healthy(port))
            await worker.answer(job, "hello")
            assert sse_text(await request) == "hello"
        assert process.wait(10) == 0


def is_healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.TransportError:
        return False


def test_the_front_end_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, api.server; "
        "sys.exit(', '.join({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.stderr.strip() == ""
