"""A pool with Redis servers that Sentinels watch, a front end, and simulated workers."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from api_processes import is_ready
from api_support import free_port
from queue_support import eventually
from servers import start_lorikeet, wait_for
from simulated_workers import worker_command
from worker_support import has_workers

from ops.lab.chaos.cluster.replicated import Replicated
from shared.die_with_parent import die_with_parent
from shared.store.redis.connection import connect
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

POOL = "main"
WORKERS_S = 60.0


class SimulatedWorkers:
    def __init__(self, url: str, count: int, **settings: Any) -> None:
        self._url = url
        self._count = count
        self._command = worker_command(url, POOL, **settings)
        self._processes: list[subprocess.Popen[bytes]] = []

    async def start(self) -> None:
        """Start all workers, and wait until they are registered."""
        self._launch()
        redis = connect(self._url)
        views = PoolViews(redis, Keys(POOL))
        await eventually(lambda: has_workers(views, self._count), within_s=WORKERS_S)
        await redis.aclose()

    def _launch(self) -> None:
        self._processes = [
            subprocess.Popen(self._command, preexec_fn=die_with_parent) for _ in range(self._count)
        ]

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@asynccontextmanager
async def front_end(folder: Path, url: str, mode: str) -> AsyncIterator[str]:
    """Run a front end, and yield its URL once it and a worker are ready."""
    port = free_port()
    words = ["api", "--port", str(port), "--redis-url", url, "--durability", mode]
    process = start_lorikeet([*words, "--retain-s", "600"], folder / "api.log")
    api_url = f"http://127.0.0.1:{port}"
    try:
        await asyncio.to_thread(
            wait_for, lambda: is_ready(api_url), (folder / "api.log").read_text, process
        )
        yield api_url
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def replicated_servers(folder: Path, **options: Any) -> AsyncIterator[Replicated]:
    """Run two Redis servers and three Sentinels."""
    servers = await Replicated.start(folder, servers=2, sentinels=3, **options)
    try:
        yield servers
    finally:
        servers.stop()


@asynccontextmanager
async def simulated_workers(
    url: str, count: int, **settings: Any
) -> AsyncIterator[SimulatedWorkers]:
    """Run workers, and kill them at exit."""
    workers = SimulatedWorkers(url, count, **settings)
    try:
        await workers.start()
        yield workers
    finally:
        workers.kill()
