"""A worker's process: it loads what it serves, and serves until a signal says stop."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable

from shared.errors import EngineStalled
from shared.settings import WorkerSettings
from shared.store.connection import check_redis, connect
from shared.store.durability import durability_of
from worker.adapters.flags import parse_adapter_flags
from worker.served_model import ServedModel
from worker.service import Worker
from worker.startup.huge_pages import use_huge_pages
from worker.startup.process_tuning import share_cores

EXIT_STALLED = 1


def run_worker(settings: WorkerSettings) -> None:
    """Run a worker until SIGTERM or SIGINT has drained it; a second signal hurries it.

    Raises:
        LorikeetError: it can't start.
    """
    run_with(settings, _load)


def _load(settings: WorkerSettings) -> ServedModel:
    share_cores()
    use_huge_pages()
    # Only here: it imports torch, and what is wrong with the settings or Redis shows before.
    from worker.startup.load_model import load_served

    served = load_served(settings)
    # What is here stays: to look through all of it for garbage again and again takes tenths of a
    # second each time, in which no thread computes.
    gc.collect()
    gc.freeze()
    return served


def run_with(settings: WorkerSettings, load: Callable[[WorkerSettings], ServedModel]) -> None:
    """Run a worker that serves what `load` gives; like `run_worker` otherwise."""
    asyncio.run(_run(settings, load))


async def _run(settings: WorkerSettings, load: Callable[[WorkerSettings], ServedModel]) -> None:
    parse_adapter_flags(settings.adapters)  # a wrong one needn't wait for the model
    redis = connect(settings.redis_url)
    try:
        await check_redis(redis, settings.redis_url)
        durability = await durability_of(redis, settings)
        served = await asyncio.to_thread(load, settings)
        worker = Worker(settings, redis, served, durability=durability, on_stalled=_exit_at_once)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
        await worker.run()
    finally:
        await redis.aclose()


def _exit_at_once(stalled: EngineStalled) -> None:
    """End the process without waiting for its tasks and threads, one of which hangs.

    Whatever keeps one of them from ending would keep the lease.
    """
    print(f"lorikeet: {stalled}", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(EXIT_STALLED)
