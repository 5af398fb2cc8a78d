"""Runs a worker as a process: loads the engine that the settings name, and handles signals."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from shared.errors import EngineBroken, SettingsError
from shared.event_loop import run
from shared.settings import WorkerSettings
from shared.store.redis.connection import Redis, check_redis, connect
from shared.store.redis.durability import Durability, durability_of
from shared.store.redis.keys import Keys
from shared.store.views.starts import WorkerStarts
from shared.tracing.start import tracing
from worker.engine_simulated.engine import SimulatedEngine
from worker.engine_simulated.load_model import load_simulated
from worker.engine_vllm.environment import set_environment, switch_python
from worker.kernels.cpu.levels import VARIABLE as CPU_LEVEL
from worker.kernels.cpu.levels import LevelUnavailable, cpu_flags, forced_level
from worker.served_model import ServedModel
from worker.service import Worker
from worker.start_report import StartReport
from worker.startup.process_tuning import share_cores, use_huge_pages
from worker.watchdog import watched

if TYPE_CHECKING:
    from shared.tracing.tracer import Tracer
    from worker.model.loader import OnStep  # imports torch

    Load = Callable[[WorkerSettings, OnStep], ServedModel]

log = structlog.get_logger()

EXIT_BROKEN = 1


def run_worker(settings: WorkerSettings) -> None:
    """Run a worker until SIGTERM or SIGINT, then drain it.

    A second signal ends the drain at once.

    Raises:
        LorikeetError: the worker can't start.
    """
    if settings.engine == "simulated":
        run_simulated(settings)
    elif settings.engine == "vllm":
        switch_python(settings.vllm_python, sys.orig_argv[1:])
        set_environment(settings, os.environ)
        run_with(settings, _load_vllm)
    else:
        run_with(settings, _load_native)


def run_simulated(settings: WorkerSettings) -> None:
    """Run a worker like `run_worker`, but with a simulated engine. SIGUSR1 makes it hang."""
    served = load_simulated(settings)
    engine = served.engine
    assert isinstance(engine, SimulatedEngine)
    signal.signal(signal.SIGUSR1, lambda *_: engine.hang())
    run_with(settings, lambda *_: served)


def _force_cpu_level(name: str) -> None:
    os.environ[CPU_LEVEL] = name
    try:
        forced_level(cpu_flags())
    except LevelUnavailable as error:
        raise SettingsError(str(error)) from None


def _warn_if_untested() -> None:
    from worker.upstream.versions import untested_note

    if note := untested_note():
        log.warning("untested_versions", note=note)


def _load_native(settings: WorkerSettings, on_step: "OnStep") -> ServedModel:
    _check(settings)
    _warn_if_untested()
    _force_cpu_level(settings.cpu_level)
    share_cores()
    use_huge_pages()
    # This imports torch, which takes seconds. The settings and Redis have been checked by then.
    on_step("importing torch", 0, 0)
    from worker.startup.load_model import load_served
    from worker.upstream.changes import check_names

    check_names()
    served = load_served(settings, on_step)
    # The objects that exist now stay for the life of the process. A collection that visits them
    # all takes tenths of a second, in which no thread computes.
    gc.collect()
    gc.freeze()
    return served


def _load_vllm(settings: WorkerSettings, on_step: "OnStep") -> ServedModel:
    _check(settings)
    on_step("loading vLLM and the base model", 0, 0)
    # This imports vLLM, which takes seconds.
    from worker.engine_vllm.core import LOST
    from worker.engine_vllm.load_model import load_vllm

    return load_vllm(settings, on_lost=lambda: _exit_at_once(EngineBroken(LOST)))


def _check(settings: WorkerSettings) -> None:
    # Workers with the simulated engine don't need what this imports.
    from worker.startup.check_files import check_files

    check_files(settings)


def run_with(settings: WorkerSettings, load: "Load") -> None:
    """Run a worker like `run_worker`, but serve the model that `load` returns."""
    with tracing(settings.otlp_endpoint, service="lorikeet-worker", pool=settings.pool) as tracer:
        run(_run(settings, load, tracer))


async def _run(
    settings: WorkerSettings,
    load: "Load",
    tracer: "Tracer | None",
) -> None:
    redis = connect(settings.redis_url)
    start = StartReport(WorkerStarts(redis, Keys(settings.pool)))
    try:
        await check_redis(redis, settings.redis_url)
        durability = await durability_of(redis, settings)
        async with start.published():
            served = await asyncio.to_thread(load, settings, start.step)
            try:
                await _serve(settings, redis, served, durability, tracer, start)
            finally:
                await asyncio.to_thread(served.close)
    finally:
        await redis.aclose()


async def _serve(
    settings: WorkerSettings,
    redis: Redis,
    served: ServedModel,
    durability: Durability | None,
    tracer: "Tracer | None",
    start: StartReport,
) -> None:
    """Run the worker until a signal ends it."""
    worker = Worker(
        settings,
        redis,
        served,
        durability=durability,
        tracer=tracer,
        on_stalled=_exit_at_once,
        start=start,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    async with watched(settings.stall_s):
        await worker.run()


def _exit_at_once(broken: EngineBroken) -> None:
    """End the process at once, because the engine hangs or has died.

    The process doesn't wait for its tasks and threads. The lease must expire, so that the pool
    requeues the jobs. If the process waited, its tasks could renew the lease, or end the jobs with
    errors.
    """
    print(f"lorikeet: {broken}", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(EXIT_BROKEN)
