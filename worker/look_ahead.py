"""Reads adapters ahead: those whose jobs wait while this worker has no room for more."""

import asyncio
import time

import structlog

from shared.errors import RedisUnavailable
from shared.ids import AdapterVersion
from shared.queue import Queue
from worker.adapters import Adapters

log = structlog.get_logger()

MAX_HEADS = 16
"""So many versions ahead, by the order of their jobs."""
TRIED_S = 30.0
"""A version isn't read ahead twice within so long: it failed, or had to go for others."""


class LookAhead:
    """Looks at what the claims leave behind, and stages it, one version at a time."""

    def __init__(self, queue: Queue, adapters: Adapters) -> None:
        self._queue = queue
        self._adapters = adapters
        self._has_cause = asyncio.Event()
        self._tried_s: dict[AdapterVersion, float] = {}

    def wake(self) -> None:
        """Look: jobs may have been left waiting."""
        self._has_cause.set()

    async def run(self) -> None:
        """Stage until cancelled."""
        while True:
            await self._has_cause.wait()
            self._has_cause.clear()
            try:
                heads = await self._queue.cold_heads(MAX_HEADS)
            except RedisUnavailable as error:
                log.warning("look_ahead_failed", error=str(error))
                continue
            for version in heads:
                if self._adapters.can_stage(version) and self._is_new(version):
                    await self._adapters.stage(version)

    def _is_new(self, version: AdapterVersion) -> bool:
        now_s = time.monotonic()
        self._tried_s = {v: at_s for v, at_s in self._tried_s.items() if now_s - at_s < TRIED_S}
        is_new = version not in self._tried_s
        self._tried_s.setdefault(version, now_s)
        return is_new
