"""The worker, an actor that owns one engine: it starts, serves, and drains."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from shared.cancel_tasks import cancel_tasks
from shared.errors import EngineBroken, EngineStalled, RedisUnavailable, SettingsError
from shared.protocol.events import Tokens
from shared.protocol.ids import WorkerId
from shared.protocol.jobs import ClaimedJob
from shared.protocol.workers import WorkerInfo
from shared.settings import WorkerSettings
from shared.store.adapter_views import AdapterViews
from shared.store.connection import Redis
from shared.store.durability import Durability
from shared.store.inspections import Inspections
from shared.store.keys import Keys
from shared.store.queue import Queue
from shared.store.queue_replies import Mail
from shared.store.registry import Registry
from shared.store.token_streams import recover
from worker.adapters.flags import parse_adapter_flags
from worker.adapters.inspector import Inspector
from worker.adapters.load_at_start import read_each
from worker.adapters.loader_threads import LoaderThreads
from worker.adapters.prefetch import LookAhead
from worker.adapters.residency import MAX_LOADING, Adapters
from worker.adapters.retention import AdapterKeeper
from worker.engine.request import StepOutput
from worker.engine.thread import EngineThread
from worker.engine_stall import until_stalled
from worker.jobs.consumer import Consumer
from worker.jobs.deadlines import Deadlines
from worker.jobs.publisher import Publisher
from worker.jobs.running import RunningJobs
from worker.lease import Lease
from worker.lora.checkpoint.adapter_entry import entry_of
from worker.membership import Membership
from worker.redis_retry import MAX_DELAY_S
from worker.served_model import ServedModel
from worker.worker_info import budgets, worker_info

if TYPE_CHECKING:  # it imports torch
    from worker.lora.checkpoint.adapter import LoRAAdapter

log = structlog.get_logger()

REAP_S = 1.0
REAPS_PER_LEASE = 4
"""At least so many sweeps in a lease: a gap of half a lease counts as a stall of Redis."""
MAIL_S = 1.0
"""Longest wait for mail: under a new id there is another mailbox to look into."""
HAND_OVER_S = 5.0
"""Longest farewell; what it leaves undone, the end of the lease does."""


class Worker:
    """Serves one base model and its adapters to one pool."""

    def __init__(
        self,
        settings: WorkerSettings,
        redis: Redis,
        served: ServedModel,
        *,
        durability: Durability | None = None,
        on_stalled: Callable[[EngineStalled], None] | None = None,
    ) -> None:
        """Wire it up, inside the event loop that it will run in.

        Args:
            settings: the worker's.
            redis: where its pool is.
            served: the model, and what computes it.
            durability: what a claim waits for; None: nothing.
            on_stalled: called when the engine hangs, before `run` raises that.
        """
        self._on_stalled = on_stalled
        self._settings = settings
        self._served = served
        self._redis = redis
        self._keys = Keys(settings.pool)
        self._queue = Queue(redis, self._keys, durability=durability)
        self._registry = Registry(redis, self._keys)
        self._jobs = RunningJobs()
        self._loop = asyncio.get_running_loop()
        self._engine = EngineThread(
            served.engine, self._on_outputs, self._on_broken, take_cores=served.take_cores
        )
        self._lease = Lease(
            lease_ms=settings.lease_ms,
            register=self._enter,
            leave=self._queue.leave,
            beat=lambda wid: self._membership.beat(wid),  # made below: adapters need the lease
            on_lost=self._drop_all,
        )
        self._publisher = Publisher(
            self._queue,
            self._lease,
            self._jobs,
            abort=self._engine.abort,
            on_job_gone=self._on_job_gone,
            on_cancelled=lambda job_id: self._consumer.cancel(job_id),  # made below
        )
        self._loader_threads = self._threads(MAX_LOADING)
        self._inspector_thread = self._threads(1)
        self._adapters = Adapters(
            self._queue,
            self._registry,
            self._lease,
            self._engine,
            base=served.base.version,
            read=served.read_version,
            host=served.host,
            threads=self._loader_threads,
            num_jobs=lambda: self._jobs.num_by_version,
        )
        self._membership = Membership(
            self._queue,
            self._registry,
            self._adapters,
            self._jobs,
            base=served.base,
            lease_ms=settings.lease_ms,
            info=self._info,
            heed=self._publisher.heed,
            on_away=self._publisher.note_redis_away,
            on_forgotten=lambda: self._keeper.tidy(),  # made below
        )
        self._inspector = Inspector(
            Inspections(redis, self._keys), served.inspect, self._inspector_thread
        )
        self._keeper = AdapterKeeper(
            self._registry,
            AdapterViews(redis, self._keys),
            self._adapters,
            served.store,
            self._jobs,
            base=served.base.version,
        )
        self._look_ahead = LookAhead(self._queue, self._adapters)
        self._consumer = Consumer(
            self._queue,
            self._lease,
            self._jobs,
            self._engine,
            self._adapters,
            self._publisher,
            served=served,
            max_num_seqs=settings.max_num_seqs,
            recover=self._recover,
            on_room=self._look_ahead.note_room,
        )
        self._deadlines = Deadlines(self._jobs, self._publisher)
        self._engine_is_broken = asyncio.Event()
        self._is_draining = asyncio.Event()
        self._may_leave = asyncio.Event()

    def _threads(self, number: int) -> LoaderThreads:
        return LoaderThreads(
            number,
            spare_cores=self._served.spare_cores,
            is_engine_busy=lambda: self._engine.is_busy,
        )

    def stop(self) -> None:
        """Drain; told twice, hand running jobs on at once."""
        (self._may_leave if self._is_draining.is_set() else self._is_draining).set()

    async def run(self) -> None:
        """Serve until stopped, and give back what is unfinished then.

        Raises:
            EngineBroken: the engine can't compute any more.
            AdapterRejected: an adapter of the settings can't be served.
            SettingsError: the settings' adapters, or the pool, don't go with the base model.
        """
        self._engine.start()
        try:
            await self._start_up()
            await self._serve()
        finally:
            self._loader_threads.close()
            self._inspector_thread.close()
            if self._engine.step_s < self._settings.stall_s:  # else its thread can't end
                await asyncio.to_thread(self._engine.stop)

    async def _start_up(self) -> None:
        sources = parse_adapter_flags(self._settings.adapters)
        if self._served.base.name in sources:
            raise SettingsError(f"--adapters: {self._served.base.name} is the base model's name")
        async for adapter in read_each(sources, self._read_adapter, self._served.named):
            await self._adapters.add(adapter)
            source = _for_all_workers(sources[adapter.name])
            self._membership.bring(entry_of(adapter, source))
        await self._lease.take()
        log.info(
            "worker_ready",
            model=self._served.base.version,
            adapters=len(sources),
            **budgets(self._settings, self._served),
        )

    async def _read_adapter(self, name: str, source: str) -> "LoRAAdapter":
        return await self._loader_threads.run(lambda: self._served.read_adapter(name, source))

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as group:
            takes_on = [
                group.create_task(self._lease.run()),
                group.create_task(self._consumer.run()),
                group.create_task(self._look_ahead.run()),
                group.create_task(self._read_mail()),
                group.create_task(self._watch_engine()),
                group.create_task(self._watch_progress()),
                group.create_task(self._deadlines.run()),
                group.create_task(self._inspector.run()),
                group.create_task(self._keeper.run()),
            ]
            winds_up = [group.create_task(self._publisher.run()), group.create_task(self._reap())]
            await self._is_draining.wait()
            await self._drain()
            await cancel_tasks(*takes_on)
            await self._leave()
            await cancel_tasks(*winds_up)

    async def _drain(self) -> None:
        """Claim nothing more, and give running jobs their time to finish."""
        self._consumer.close()
        log.info("worker_draining", jobs=len(self._jobs), seconds=self._settings.drain_s)
        if self._jobs:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.drain_s):
                    await self._may_leave.wait()

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(HAND_OVER_S):
                await self._hand_over()
        except (TimeoutError, RedisUnavailable) as error:
            log.warning("hand_over_failed", jobs=len(self._jobs), error=str(error))

    async def _hand_over(self) -> None:
        """Give unfinished jobs back, with all that was shown of them in checkpoints."""
        for job in self._jobs:
            for choice in job.choices:
                self._engine.abort(choice.request_id)
        # Once the engine has taken the aborts, all outputs there will be are on their way here.
        await asyncio.wrap_future(self._engine.call(lambda engine: engine.stats()))
        await self._publisher.flush(save_all=True)
        released = [job.id for job in self._jobs]
        await self._queue.leave(self._lease.wid)
        log.info("worker_left", worker=self._lease.wid, released=released)

    async def _enter(self, wid: WorkerId) -> None:
        await self._membership.enter(wid)
        self._consumer.wake()

    async def _read_mail(self) -> None:
        while True:
            await self._lease.is_held.wait()
            try:
                mail = await self._queue.wait(self._lease.wid, timeout_s=MAIL_S)
            except RedisUnavailable:
                await asyncio.sleep(MAX_DELAY_S)
                continue
            if mail:
                self._heed(mail)

    def _heed(self, mail: Mail) -> None:
        match mail:
            case Mail(kind="job"):
                self._consumer.wake()
            case Mail(kind="cancel", job=job) if job:
                self._consumer.cancel(job)
            case Mail(kind="inspect", inspection=inspection) if inspection:
                self._inspector.accept(inspection)
            case Mail(kind="tidy"):
                self._keeper.tidy()
            case Mail(kind="drain"):
                self._is_draining.set()

    async def _reap(self) -> None:
        every_s = min(REAP_S, self._settings.lease_ms / 1000 / REAPS_PER_LEASE)
        while True:
            with contextlib.suppress(RedisUnavailable):
                reaped = await self._queue.reap(every_ms=int(every_s * 1000))
                if reaped.workers:
                    log.warning("workers_reaped", num=reaped.workers, requeued=reaped.requeued)
            await asyncio.sleep(every_s)

    async def _watch_progress(self) -> None:
        """End the worker when its engine hangs: its lease must not outlive it.

        What it holds is handed on when the lease has ended, as after any other death of a worker:
        one of its jobs may be the cause.
        """
        limit_s = self._settings.stall_s
        await until_stalled(lambda: self._engine.step_s, limit_s)
        log.error("engine_stalled", seconds=round(self._engine.step_s, 1), jobs=len(self._jobs))
        stalled = EngineStalled(
            f"the engine has finished no step for {limit_s:g} s (--stall-s) while it had work"
        )
        if self._on_stalled:
            self._on_stalled(stalled)
        raise stalled

    async def _watch_engine(self) -> None:
        await self._engine_is_broken.wait()
        raise EngineBroken("the engine can't compute any more; see the log")

    async def _recover(self, claimed: ClaimedJob) -> tuple[Tokens, ...]:
        return await recover(self._redis, self._keys, claimed)

    def _on_outputs(self, outputs: list[StepOutput]) -> None:
        """Take a step's outputs from the engine thread to this one."""
        self._loop.call_soon_threadsafe(self._publisher.accept, outputs)

    def _on_broken(self) -> None:
        self._loop.call_soon_threadsafe(self._engine_is_broken.set)

    def _on_job_gone(self) -> None:
        self._consumer.job_gone()
        if self._is_draining.is_set() and not self._jobs:
            self._may_leave.set()

    def _drop_all(self) -> None:
        """Forget every job: the lease under which they were claimed is lost."""
        for job in self._jobs:
            log.info("job_dropped", job_id=job.id, try_=job.claimed.try_)
            for choice in job.choices:
                self._engine.abort(choice.request_id)
        self._jobs.clear()
        self._on_job_gone()

    def _info(self) -> WorkerInfo:
        counters = {"lease_losses": self._lease.num_losses, **self._adapters.totals}
        return worker_info(
            self._settings,
            self._served,
            self._engine.stats,
            counters,
            step_s=self._engine.step_s,
        )


def _for_all_workers(source: str) -> str:
    """A folder's full path, as workers may have been started elsewhere; a hub id as it is."""
    folder = Path(source).expanduser()
    return str(folder.resolve()) if folder.is_dir() else source
