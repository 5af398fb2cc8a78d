"""Process with many workers, each with a simulated engine and a Redis client of its own.

python -m ops.lab.bench.worker_host URL POOL WORKERS STEP_MS SEQUENCES
"""

import asyncio

import typer

from ops.lab.bench.servers.simulated_pool import BASE
from ops.lab.bench.streams.http_client import allow_many_connections
from shared.log import configure_logging
from shared.settings import WorkerSettings, load_settings
from shared.store.redis.connection import connect
from worker.engine_simulated.load_model import load_simulated
from worker.service import Worker

ADAPTER_MB = 64
"""Adapter memory of each worker in MiB. Each adapter takes 1 MiB."""
MAX_CONNECTIONS = 8
START_S = 2.0
"""Seconds over which the starts of the workers are spread.

A worker repeats calls at fixed intervals of up to this length. Workers that started together would
always make these calls at the same time.
"""


async def _run(settings: WorkerSettings, delay_s: float) -> None:
    served = load_simulated(settings)
    redis = connect(settings.redis_url, max_connections=MAX_CONNECTIONS)
    await asyncio.sleep(delay_s)
    await Worker(settings, redis, served).run()


async def _run_all(settings: WorkerSettings, num_workers: int) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(num_workers):
            group.create_task(_run(settings, START_S * number / num_workers))


def main(url: str, pool: str, workers: int, step_ms: int, sequences: int) -> None:
    """Run the workers until the process ends."""
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
    asyncio.run(_run_all(settings, workers))


if __name__ == "__main__":
    typer.run(main)
