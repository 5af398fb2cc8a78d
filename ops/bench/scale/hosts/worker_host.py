"""Process with many workers, each with a simulated engine and a Redis client of its own.

`python -m ops.bench.scale.hosts.worker_host URL POOL WORKERS STEP_MS SEQUENCES`
"""

import asyncio
import threading
from dataclasses import replace
from typing import Any

import typer

from ops.bench.scale.hosts.host_process import serve_commands
from ops.bench.scale.processes import BASE
from ops.bench.scale.streams.http_client import allow_many_connections
from ops.bench.scale.streams.token_times import TokenTimes, recorded
from shared.log import configure_logging
from shared.settings import WorkerSettings, load_settings
from shared.store.redis.connection import connect
from worker.engine_simulated.load_model import load_simulated
from worker.service import Worker

ADAPTER_MB = 64
"""Adapter memory of a worker. Each adapter takes 1 MiB."""
MAX_CONNECTIONS = 8
START_S = 2.0
"""Time over which the workers start. They repeat their calls at fixed intervals, the longest of
which is this one. If they started together, they would make these calls together ever after."""


class WorkerHost:
    """The workers of this process."""

    def __init__(self, settings: WorkerSettings, num_workers: int) -> None:
        self._times = TokenTimes()
        self._workers = [self._worker(settings) for _ in range(num_workers)]

    async def run(self) -> None:
        """Serve until standard input is closed."""
        async with asyncio.TaskGroup() as group:
            running = [
                group.create_task(_run(worker, START_S * number / len(self._workers)))
                for number, worker in enumerate(self._workers)
            ]
            await serve_commands(self._handle)
            for task in running:
                task.cancel()

    def _worker(self, settings: WorkerSettings) -> Worker:
        served = load_simulated(settings)
        redis = connect(settings.redis_url, max_connections=MAX_CONNECTIONS)
        return Worker(settings, redis, replace(served, engine=recorded(served.engine, self._times)))

    async def _handle(self, command: dict[str, Any]) -> Any:
        match command["command"]:
            case "engine_threads":
                return [t.native_id for t in threading.enumerate() if t.name == "engine"]
            case "produced":
                return self._times.take()
            case "steps":
                return self._times.num_steps, self._times.num_tokens
            case "lease_losses":
                return sum(worker.parts.lease.num_losses for worker in self._workers)
        raise ValueError(command)


async def _run(worker: Worker, delay_s: float) -> None:
    await asyncio.sleep(delay_s)
    await worker.run()


def main(url: str, pool: str, workers: int, step_ms: int, sequences: int) -> None:
    """Run the workers until standard input is closed."""
    configure_logging("error", process="worker")
    allow_many_connections()
    settings = load_settings(
        WorkerSettings,
        engine="simulated",
        model=BASE,
        redis_url=url,
        pool=pool,
        max_num_seqs=sequences,
        adapter_memory_mb=ADAPTER_MB,
        simulated_step_ms=step_ms,
        simulated_load_ms=0,
    )

    async def run() -> None:
        await WorkerHost(settings, workers).run()

    asyncio.run(run())


if __name__ == "__main__":
    typer.run(main)
