"""Reports the steps of a worker's start: in the log, and in Redis for front ends."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import structlog

from shared.cancel_tasks import cancel_tasks
from shared.errors import RedisUnavailable
from shared.store.views.starts import StartStep, WorkerStarts

PERIOD_S = 1.0
"""Seconds between two reports to Redis."""

log = structlog.get_logger()


class StartReport:
    """The current step of one worker's start. Any thread may set this step."""

    def __init__(self, starts: WorkerStarts) -> None:
        self._starts = starts
        self._began_s = time.monotonic()
        self._step = StartStep(step="starting")
        self._is_ended = asyncio.Event()

    def step(self, text: str, done: int = 0, total: int = 0) -> None:
        """Set the current step, and log the step if it is new."""
        if text != self._step.step:
            log.info("worker_starting", step=text)
        self._step = StartStep(step=text, done=done, total=total)

    def end(self) -> None:
        """End the reports to Redis, because the worker is ready."""
        self._is_ended.set()

    @asynccontextmanager
    async def published(self) -> AsyncIterator[None]:
        """Report the current step to Redis until the context ends or `end` is called."""
        task = asyncio.create_task(self._publish())
        try:
            yield
        finally:
            await cancel_tasks(task)

    async def _publish(self) -> None:
        while not self._is_ended.is_set():
            elapsed_s = round(time.monotonic() - self._began_s, 1)
            with suppress(RedisUnavailable):
                await self._starts.report(replace(self._step, elapsed_s=elapsed_s))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_ended.wait(), PERIOD_S)
