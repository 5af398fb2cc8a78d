"""Reads adapters ahead: those whose jobs wait while this worker has no room for more."""

import asyncio
import time

import structlog

from shared.errors import RedisUnavailable
from shared.protocol.ids import AdapterVersion
from shared.store.queue import Queue
from worker.adapters.residency import Adapters

log = structlog.get_logger()

LOOK_S = 0.25
MAX_HEADS = 16
"""So many versions ahead, by the order of their jobs."""
TRIED_S = 30.0
"""A version isn't read ahead twice within so long: it failed, or had to go for others."""


class LookAhead:
    """Looks at what claims leave behind for want of room, and stages it, a version at a time."""

    def __init__(self, queue: Queue, adapters: Adapters) -> None:
        self._queue = queue
        self._adapters = adapters
        self._is_full = asyncio.Event()
        self._tried_s: dict[AdapterVersion, float] = {}

    def note_room(self, has_room: bool) -> None:
        """Note whether there is room for more jobs; while there is, claims take what there is."""
        if has_room:
            self._is_full.clear()
        else:
            self._is_full.set()

    async def run(self) -> None:
        """Stage until cancelled."""
        while True:
            await self._is_full.wait()
            try:
                heads = await self._queue.cold_heads(MAX_HEADS)
            except RedisUnavailable as error:
                log.warning("look_ahead_failed", error=str(error))
                heads = []
            for version in heads:
                if self._adapters.can_stage(version) and self._is_new(version):
                    await self._adapters.stage(version)
            await asyncio.sleep(LOOK_S)

    def _is_new(self, version: AdapterVersion) -> bool:
        now_s = time.monotonic()
        self._tried_s = {v: at_s for v, at_s in self._tried_s.items() if now_s - at_s < TRIED_S}
        is_new = version not in self._tried_s
        self._tried_s.setdefault(version, now_s)
        return is_new
