"""Incidents of front ends, control processes and Redis: their starts, ends, deaths and outages.

The sweep records the death of a process that hasn't reported for a minute (`reap.lua`).
"""

import os
import socket
import uuid
from enum import StrEnum

from shared.store.redis.pool_store import PoolStore


class ProcessKind(StrEnum):
    """Kind of a process that isn't a worker."""

    FRONT_END = "front_end"
    CONTROL = "control"


def new_process_id() -> str:
    """Return a unique id: host name, process id and a random part."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"


class Processes(PoolStore):
    """Records the incidents of one pool's processes."""

    async def report(self, kind: ProcessKind, process: str) -> None:
        """Report that a process is alive. Front ends do this with `Queue.beat_api`."""
        await self._scripts.run("beat_process", kind, process)

    async def end(self, kind: ProcessKind, process: str) -> None:
        """Record that a process ends as planned. May be repeated."""
        await self._scripts.run("end_process", kind, process)

    async def record_outage(self, seconds: float) -> None:
        """Record that Redis gave no answer during the last `seconds` seconds.

        If several processes report the same outage, it is recorded once.
        """
        await self._scripts.run("record_outage", round(seconds * 1000))
