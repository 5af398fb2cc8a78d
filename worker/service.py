"""Runs a worker and its engine: startup, service for the pool, and drain."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from shared.cancel_tasks import cancel_tasks
from shared.errors import EngineBroken, EngineStalled, RedisUnavailable
from shared.protocol.ids import worker_name
from shared.settings import WorkerSettings
from shared.store.redis.connection import Redis
from shared.store.redis.durability import Durability
from worker.adapters.source.interface import AdapterWeights, CheckedAdapter
from worker.adapters.source.load_at_start import has_bases_name, read_each
from worker.assembly import WorkerParts
from worker.jobs.deadlines import Deadlines
from worker.mailbox import Mailbox
from worker.served_model import ServedModel
from worker.start_report import StartReport
from worker.watchdog import until_stalled
from worker.worker_info import startup_fields

if TYPE_CHECKING:
    from shared.tracing.tracer import Tracer

log = structlog.get_logger()

REAP_S = 1.0
REAPS_PER_LEASE = 4
"""Minimum number of sweeps for dead workers per lease.

After a longer gap, the pool assumes that Redis had stalled, and extends all leases (`reap.lua`).
"""
SETTLE_S = 2.0
"""Maximum seconds for making the ends of jobs durable before the worker leaves the pool."""
HAND_OVER_S = 5.0
"""Maximum seconds for leaving the pool. Jobs that remain are requeued when the lease expires."""


class Worker:
    """Serves one base model and its adapters to one pool."""

    def __init__(
        self,
        settings: WorkerSettings,
        redis: Redis,
        served: ServedModel,
        *,
        durability: Durability | None = None,
        tracer: "Tracer | None" = None,
        on_stalled: Callable[[EngineStalled], None] | None = None,
        start: StartReport | None = None,
    ) -> None:
        """Create the worker inside the event loop that it will run in.

        `durability` and `tracer` have the same meaning as in `WorkerParts`. If the engine hangs,
        `on_stalled` is called with the error before `run` raises this error. The last steps of the
        worker's start, and the end of the start, are reported to `start`.
        """
        self._settings = settings
        self._served = served
        self._on_stalled = on_stalled
        self._start = start
        self._loop = asyncio.get_running_loop()
        self.parts = parts = WorkerParts(settings, served, redis, durability, tracer)
        """The worker's actors, and the state that they share."""
        self._is_draining = asyncio.Event()
        self._may_leave = asyncio.Event()
        self._engine_is_broken = asyncio.Event()
        self._deadlines = Deadlines(parts.jobs, parts.publisher)
        self._mailbox = Mailbox(parts.stores.queue, parts.lease, parts.consumer, parts.adapters)
        parts.lease.subscribe(self._drop_jobs)
        parts.jobs.subscribe(self._leave_if_drained)

    def stop(self) -> None:
        """Begin to drain. A second call hands running jobs over immediately."""
        (self._may_leave if self._is_draining.is_set() else self._is_draining).set()

    async def run(self) -> None:
        """Serve until stopped, then return unfinished jobs to the queue.

        Raises:
            EngineBroken: the engine can't compute any more.
            EngineStalled: the engine hangs.
            AdapterRejected: adapters in the settings can't be served. The message names all of
                them.
            SettingsError: the pool serves another base model.
        """
        engine = self.parts.engine
        pass_on = self._loop.call_soon_threadsafe  # from the engine's thread to the event loop
        engine.start(
            on_outputs=lambda outputs: pass_on(self.parts.publisher.accept, outputs),
            on_broken=lambda: pass_on(self._engine_is_broken.set),
        )
        try:
            await self._start_up()
            await self._serve()
        finally:
            self.parts.adapters.close()
            if engine.step_s < self._settings.stall_s:  # a hung engine's thread can't end
                await asyncio.to_thread(engine.stop)

    async def _start_up(self) -> None:
        """Load the adapters in the settings, and enter the pool."""
        parts, sources = self.parts, self._settings.adapter_sources
        num_served = 0
        skips_bad = self._settings.skip_bad_adapters
        async for adapter in read_each(sources, self._read_adapter, skips_bad=skips_bad):
            num_served += 1
            if self._start:
                self._start.step("reading the adapters", num_served, len(sources))
            await parts.adapters.loader.add(adapter)
            parts.membership.add_adapter(adapter.registry_entry(adapter.weights.source))
        await parts.lease.acquire(parts.membership)
        if self._start:
            self._start.end()
        log.info(
            "worker_ready",
            model=self._served.base.version,
            adapters=num_served,
            **startup_fields(self._settings, self._served),
        )

    async def _read_adapter(self, name: str, source: str) -> CheckedAdapter[AdapterWeights]:
        if name == self._served.base.name:
            raise has_bases_name(name, source)
        read = self._served.adapters.source.read
        return await self.parts.adapters.loader_threads.run(lambda: read(name, source))

    async def _serve(self) -> None:
        """Run all loops until the worker has drained. The loops that publish end last."""
        parts = self.parts
        async with asyncio.TaskGroup() as group:
            serving = [
                group.create_task(parts.lease.run(parts.membership)),
                group.create_task(parts.consumer.run()),
                group.create_task(parts.adapters.prefetcher.run()),
                group.create_task(parts.adapters.pin_keeper.run()),
                group.create_task(parts.adapters.advertiser.run()),
                group.create_task(parts.adapters.inspector.run()),
                group.create_task(parts.adapters.retention.run()),
                group.create_task(parts.tokenizations.run()),
                group.create_task(self._mailbox.run()),
                group.create_task(self._deadlines.run()),
                group.create_task(parts.drain.run()),
                group.create_task(self._watch_engine()),
                group.create_task(self._watch_progress()),
            ]
            publishing = [
                group.create_task(parts.publisher.run()),
                group.create_task(parts.ends.run()),
                group.create_task(self._reap()),
            ]
            await self._is_draining.wait()
            await self._drain()
            await cancel_tasks(*serving)
            await self._leave()
            await cancel_tasks(*publishing)

    async def _drain(self) -> None:
        """Claim no more jobs, and give the running jobs time to finish."""
        parts = self.parts
        parts.consumer.close()
        log.info("worker_draining", jobs=len(parts.jobs), seconds=self._settings.drain_s)
        if parts.jobs:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.drain_s):
                    await self._may_leave.wait()

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(HAND_OVER_S):
                await self._hand_over()
        except (TimeoutError, RedisUnavailable) as error:
            log.warning("hand_over_failed", jobs=len(self.parts.jobs), error=str(error))

    async def _hand_over(self) -> None:
        """Write checkpoints of all published tokens, then return unfinished jobs to the queue."""
        parts = self.parts
        self._abort_all()
        # Once the engine has handled the aborts, no further outputs are produced.
        await asyncio.wrap_future(parts.engine.call(lambda engine: engine.stats()))
        await parts.publisher.flush(save_all=True)
        with contextlib.suppress(TimeoutError):  # the worker must still leave the pool
            async with asyncio.timeout(SETTLE_S):
                await parts.ends.settle()
        released = [job.id for job in parts.jobs]
        await parts.membership.leave(parts.lease.wid)
        for job in parts.jobs:
            parts.jobs.remove(job)
        wid = parts.lease.wid
        log.info("worker_left", worker=wid, name=worker_name(wid), released=released)

    async def _reap(self) -> None:
        """At regular intervals, requeue the jobs of workers that have died."""
        every_s = min(REAP_S, self._settings.lease_ms / 1000 / REAPS_PER_LEASE)
        while True:
            with contextlib.suppress(RedisUnavailable):
                reaped = await self.parts.stores.queue.reap(every_ms=int(every_s * 1000))
                if reaped.workers:
                    log.warning("workers_reaped", num=reaped.workers, requeued=reaped.requeued)
            await asyncio.sleep(every_s)

    async def _watch_progress(self) -> None:
        """End the worker if its engine hangs, so that the lease expires.

        The jobs are handed over when the lease expires, like those of a worker that crashed. The
        pool must treat the hang as a crash, because one of the jobs may have caused it.
        """
        limit_s, engine = self._settings.stall_s, self.parts.engine
        await until_stalled(lambda: engine.step_s, limit_s)
        log.error("engine_stalled", seconds=round(engine.step_s, 1), jobs=len(self.parts.jobs))
        stalled = EngineStalled(
            f"the engine has finished no step for {limit_s:g} s (--stall-s) while it had work"
        )
        if self._on_stalled:
            self._on_stalled(stalled)
        raise stalled

    async def _watch_engine(self) -> None:
        await self._engine_is_broken.wait()
        raise EngineBroken("the engine can't compute any more; see the log")

    def _leave_if_drained(self) -> None:
        if self._is_draining.is_set() and not self.parts.jobs:
            self._may_leave.set()

    def _drop_jobs(self) -> None:
        """Drop all jobs, because the worker has lost the lease under which it claimed them."""
        jobs = self.parts.jobs
        for job in jobs:
            log.info("job_dropped", job_id=job.id, try_=job.claimed.try_)
        self._abort_all()
        jobs.clear()

    def _abort_all(self) -> None:
        for job in self.parts.jobs:
            for choice in job.choices:
                self.parts.engine.abort(choice.request_id)
