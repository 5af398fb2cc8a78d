"""Keeps this worker registered in the pool by renewing its lease."""

import asyncio
import contextlib
import os
import socket
import uuid
from collections.abc import Callable
from typing import Protocol

import structlog

from shared.errors import LeaseLost, RedisUnavailable
from shared.protocol.ids import WorkerId, worker_name

log = structlog.get_logger()

BEATS_PER_LEASE = 3
"""Number of renewals (heartbeats) within the duration of one lease."""
RETRY_S = 0.2
"""Seconds to wait after a renewal that didn't reach Redis."""


class Member(Protocol):
    """Registers a worker in the pool, renews its lease and finally removes the worker."""

    async def enter(self, wid: WorkerId) -> None:
        """Register the worker under the id `wid`."""

    async def beat(self, wid: WorkerId) -> None:
        """Renew the lease of `wid`.

        Raises:
            LeaseLost: the lease has expired, or the pool doesn't know the id.
            RedisUnavailable: Redis didn't answer.
        """

    async def leave(self, wid: WorkerId) -> None:
        """Remove `wid` from the pool."""


class Lease:
    """Holds the worker's id in the pool, and replaces it whenever the lease is lost.

    The pool requeues the jobs of a worker whose lease is lost. That worker must discard all work
    that it started under the lost id.
    """

    def __init__(self, *, lease_ms: int) -> None:
        """Create a lease that isn't held yet. It will expire `lease_ms` after its last renewal."""
        self.wid = new_worker_id()
        """Current worker id. It may not be registered yet."""
        self.is_held = asyncio.Event()
        """Set while the current id is registered."""
        self.num_losses = 0
        """Number of leases lost since the worker's start."""
        self._is_lost = asyncio.Event()
        self._beat_s = lease_ms / 1000 / BEATS_PER_LEASE
        self._listeners: list[Callable[[], None]] = []

    def subscribe(self, on_lost: Callable[[], None]) -> None:
        """Call `on_lost` after each loss of the lease. `wid` is already the new id then."""
        self._listeners.append(on_lost)

    async def acquire(self, member: Member) -> None:
        """Register the worker under the current id.

        If that id is lost during the registration, the lease isn't held afterwards, and `run`
        acquires the lease under another id.

        Raises:
            LorikeetError: the pool rejects this worker, or Redis is unavailable.
        """
        wid = self.wid
        try:
            await member.enter(wid)
        except LeaseLost:  # the registration takes several calls, and one of them was late
            self.lose(wid)
            return
        if wid != self.wid:
            # The id was lost meanwhile. The worker won't renew that id, so it must leave the pool.
            await member.leave(wid)
            return
        self.is_held.set()
        self._is_lost.clear()
        log.info("worker_registered", worker=wid, name=worker_name(wid))

    async def run(self, member: Member) -> None:
        """Renew the lease until cancelled. After a loss, acquire the lease again."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._beat_s):
                    await self._is_lost.wait()
            await self._renew(member)

    def lose(self, wid: WorkerId) -> None:
        """Replace the id `wid` after its lease has expired. Do nothing if another id is current."""
        if wid != self.wid:
            return
        log.warning("lease_lost", worker=wid, name=worker_name(wid))
        self.num_losses += 1
        self.is_held.clear()
        self._is_lost.set()
        self.wid = new_worker_id()
        for listener in self._listeners:
            listener()

    async def _renew(self, member: Member) -> None:
        wid = self.wid
        try:
            if self.is_held.is_set():
                await member.beat(wid)
            else:
                await self.acquire(member)
        except LeaseLost:
            self.lose(wid)
        except RedisUnavailable as error:
            log.warning("beat_failed", error=str(error))
            await asyncio.sleep(RETRY_S)


def new_worker_id() -> WorkerId:
    """Return a unique id: host name, process id and a random part."""
    return WorkerId(f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex}")
