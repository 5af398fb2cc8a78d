"""Tasks of the control process.

Each task is short and may be repeated, also by several processes at the same time. A task that
fails or takes too long is logged, and doesn't affect the other tasks.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import asdict, dataclass

import structlog
from arq.worker import Function

from ops.control.shadow_comparison import ShadowComparison
from shared.errors import RedisUnavailable
from shared.settings import ControlSettings
from shared.store.adapters.registry import Registry
from shared.store.audit.running_audit import RunningAudit
from shared.store.jobs.dead_letters import DeadLetters
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

REAP_EVERY_MS = 1000
MAX_LOGGED = 20
"""Maximum number of stray keys in one log line."""
DAY_MS = 86_400_000
MIB = 2**20
NEVER_MS = 10**15

log = structlog.get_logger()


class ControlTasks:
    """The tasks of a control process for its pool. Each public method is one task."""

    def __init__(self, redis: Redis, keys: Keys, settings: ControlSettings) -> None:
        self._queue = Queue(redis, keys)
        self._registry = Registry(redis, keys)
        self._letters = DeadLetters(redis, keys)
        self._audit = RunningAudit(redis, keys)
        self._comparison = ShadowComparison(redis, keys)
        self._quarantine_ms = int(settings.quarantine_s * 1000) or NEVER_MS
        self._max_age_ms = settings.dead_letter_days * DAY_MS
        self._max_bytes = settings.dead_letters_mb * MIB

    async def reap(self) -> None:
        """Requeue dead workers' jobs, end overdue jobs, delete ended jobs beyond `retain_mb`."""
        reaped = await self._queue.reap(every_ms=REAP_EVERY_MS)
        if reaped.workers:
            log.warning(
                "workers_given_up",
                workers=reaped.workers,
                requeued=reaped.requeued,
                ended=reaped.ended,
            )

    async def release_quarantined(self) -> None:
        """Release the adapter versions that have been quarantined for long enough."""
        released = await self._registry.release_quarantined(after_ms=self._quarantine_ms)
        if released:
            log.warning("adapters_released", versions=released)

    async def forget_unused(self) -> None:
        """Delete unused adapter versions, as workers do. A pool without workers needs this task."""
        if forgotten := await self._registry.forget_unused():
            log.info("adapters_forgotten", versions=forgotten)

    async def report_dead_letters(self) -> None:
        """Log a summary of the new dead letters."""
        if summary := await self._letters.take_unreported():
            log.warning("new_dead_letters", **asdict(summary))

    async def trim_dead_letters(self) -> None:
        """Delete dead letters that are too old.

        If the rest takes too many bytes, delete the oldest of it, too.
        """
        deleted = await self._letters.trim(max_age_ms=self._max_age_ms, max_bytes=self._max_bytes)
        if deleted:
            log.info("dead_letters_deleted", num_letters=deleted)

    async def audit(self) -> None:
        """Check some of the pool's keys. Log new strays: keys with neither owner nor lifetime."""
        if strays := await self._audit.step():
            logged = [asdict(stray) for stray in strays[:MAX_LOGGED]]
            log.warning("stray_keys", num_strays=len(strays), strays=logged)

    async def compare_shadows(self) -> None:
        """Compare answers of shadows, which get copies of jobs, with those of current versions."""
        if compared := await self._comparison.step():
            log.info("shadows_compared", num_pairs=compared)


@dataclass(frozen=True, slots=True)
class ControlTask:
    """A task with its schedule and its time limit."""

    name: str
    run: Callable[[ControlTasks], Awaitable[None]]
    seconds: Collection[int]
    """Seconds of each minute when the task is due."""
    timeout_s: float

    async def run_guarded(self, tasks: ControlTasks) -> None:
        """Run the task. If it fails, log the error instead of raising it."""
        try:
            async with asyncio.timeout(self.timeout_s):
                await self.run(tasks)
        except (RedisUnavailable, TimeoutError) as error:
            log.warning("task_failed", task=self.name, error=str(error) or "it took too long")
        except Exception:
            log.exception("task_failed", task=self.name)


@dataclass(frozen=True, slots=True)
class BatchWork:
    """Tasks and arq functions that run batches."""

    tasks: Sequence[ControlTask] = ()
    functions: Sequence[Function] = ()


EVERY_SECOND = range(60)
EVERY_2_S = range(0, 60, 2)
EVERY_10_S = range(5, 60, 10)
TASKS = (
    ControlTask("reap", ControlTasks.reap, EVERY_SECOND, 10),
    ControlTask("release_quarantined", ControlTasks.release_quarantined, EVERY_10_S, 10),
    ControlTask("compare_shadows", ControlTasks.compare_shadows, EVERY_2_S, 10),
    ControlTask("forget_unused", ControlTasks.forget_unused, EVERY_10_S, 10),
    ControlTask("report_dead_letters", ControlTasks.report_dead_letters, EVERY_10_S, 10),
    ControlTask("trim_dead_letters", ControlTasks.trim_dead_letters, {20}, 20),
    ControlTask("audit", ControlTasks.audit, {30}, 40),
)
