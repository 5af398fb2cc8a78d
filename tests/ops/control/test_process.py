"""The control process runs its tasks, also across outages of Redis."""

import asyncio
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from child_processes import child_processes
from queue_support import LIMITS, Actor, eventually, make_job
from servers import LORIKEET

from ops.local.embedded_redis import EmbeddedRedis
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start_control() -> Iterator[Start]:
    with child_processes() as start_process:

        def start(url: str, pool: str, *flags: str) -> "subprocess.Popen[str]":
            command = [str(LORIKEET), "control", "--redis-url", url, "--pool", pool, *flags]
            return start_process(command, stderr=subprocess.PIPE)

        yield start


async def logs(control: "subprocess.Popen[str]", event: str) -> None:
    assert control.stderr is not None
    line = "started"
    while event not in line:
        line = await asyncio.wait_for(asyncio.to_thread(control.stderr.readline), 15)
        assert line, "the process ended"


async def check_dead_worker_is_reaped(redis: Redis, keys: Keys) -> None:
    queue, views = Queue(redis, keys), PoolViews(redis, keys)
    worker = await Actor(queue, redis, keys, "w1", ["a@1"]).register(lease_ms=100)
    await queue.enqueue(make_job(), LIMITS)
    assert len(await worker.claim()) == 1

    async def is_requeued() -> bool:
        return (await views.counts()).waiting == 1

    await eventually(is_requeued)


async def test_it_continues_after_redis_was_unavailable_and_stops_while_it_is(
    start_control: Start,
    start_server: Callable[..., EmbeddedRedis],
    open_client: Callable[[str], Redis],
    pool: str,
    keys: Keys,
    tmp_path: Path,
) -> None:
    server = start_server()
    control = start_control(server.url, pool, "--file-store", str(tmp_path))  # with batches
    redis = open_client(server.url)
    await check_dead_worker_is_reaped(redis, keys)
    server.stop()
    await logs(control, "redis_away")
    server = start_server(port=server.port)
    await check_dead_worker_is_reaped(redis, keys)
    server.stop()
    await logs(control, "redis_away")
    control.send_signal(signal.SIGINT)  # other tests send SIGTERM
    _, log = control.communicate(timeout=5)
    assert control.returncode == 0
    assert "control_stopped" in log
    assert "Traceback" not in log


@pytest.mark.slow
async def test_of_several_processes_one_runs_each_task(
    start_control: Start, redis_url: str, pool: str, redis: Redis, keys: Keys
) -> None:
    error = '{"code":"poison_job","message":"it kills"}'
    letter = {"id": "1", "version": "a@1", "tenant": "t", "try": 3, "worker": "w", "error": error}
    await redis.xadd(keys.dead, {**letter, "body": ""})  # type: ignore[arg-type]
    controls = [start_control(redis_url, pool) for _ in range(3)]

    async def is_reported() -> bool:
        return bool(await redis.exists(keys.reported))

    await eventually(is_reported, within_s=20)
    for control in controls:
        control.terminate()
    output = "".join(control.communicate(timeout=5)[1] for control in controls)
    assert output.count("new_dead_letters") == 1
