"""`lorikeet health` against a real Redis, as a container's health check runs it."""

import asyncio
import socket
import subprocess
from collections.abc import Sequence

import pytest
from api_support import running_app
from child_processes import child_processes
from queue_support import INFO, Actor, eventually
from servers import LORIKEET

from shared.settings import ApiSettings
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys


@pytest.fixture
def pool_flags(redis_url: str, pool: str) -> list[str]:
    return ["--redis-url", redis_url, "--pool", pool]


async def health(process: str, pool_flags: Sequence[str]) -> tuple[int, str]:
    command = [str(LORIKEET), "health", process, *pool_flags]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
async def test_a_worker_is_healthy_while_it_holds_a_lease_under_this_host_name(
    queue: Queue, redis: Redis, keys: Keys, pool_flags: list[str]
) -> None:
    host = socket.gethostname()
    await Actor(queue, redis, keys, f"{host}2:1:a", []).register(lease_ms=60_000)
    code, output = await health("worker", pool_flags)
    assert (code, f"no worker of host {host} is alive" in output) == (1, True)
    worker = await Actor(queue, redis, keys, f"{host}:1:a", []).register(lease_ms=60_000)
    assert await health("worker", pool_flags) == (0, "alive\n")
    await queue.beat(worker.id, lease_ms=0, info=INFO)
    assert (await health("worker", pool_flags))[0] == 1


@pytest.mark.slow
async def test_control_is_healthy_once_it_works(pool_flags: list[str]) -> None:
    async def is_healthy() -> bool:
        return await health("control", pool_flags) == (0, "alive\n")

    assert not await is_healthy()
    with child_processes() as start:
        control = start([str(LORIKEET), "control", *pool_flags], stderr=subprocess.DEVNULL)
        await eventually(is_healthy, within_s=30)
        control.terminate()
        assert control.wait(60) == 0


async def test_a_front_end_is_healthy_while_it_answers(
    redis_url: str, pool: str, pool_flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_app(ApiSettings(redis_url=redis_url, pool=pool)) as server:
        monkeypatch.setenv("LORIKEET_PORT", server.url.rpartition(":")[2])
        assert await health("api", pool_flags) == (0, "alive\n")
    assert (await health("api", pool_flags))[0] == 1


@pytest.mark.slow
async def test_a_front_end_elsewhere_is_found_by_its_url(
    redis_url: str, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command needs no Redis, so LORIKEET_REDIS_URL may be unreachable."""
    monkeypatch.setenv("LORIKEET_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("LORIKEET_PORT", "1")
    async with running_app(ApiSettings(redis_url=redis_url, pool=pool)) as server:
        assert await health("api", ["--url", server.url]) == (0, "alive\n")
        monkeypatch.setenv("LORIKEET_URL", f"{server.url}/v1")
        assert await health("api", []) == (0, "alive\n")
        code, output = await health("api", ["--url", "http://127.0.0.1:1"])
        assert (code, "no answer from http://127.0.0.1:1: " in output) == (1, True)
    code, output = await health("api", [])
    assert (code, f"no answer from {server.url}: " in output) == (1, True)
