"""This worker's standing in the pool: an id that holds jobs for as long as it beats."""

import asyncio
import contextlib
import os
import socket
import uuid
from collections.abc import Awaitable, Callable

import structlog

from shared.errors import LeaseLost, RedisUnavailable
from shared.protocol.ids import WorkerId

log = structlog.get_logger()

BEATS_PER_LEASE = 3
RETRY_S = 0.2


class Lease:
    """Registers under a fresh id, beats, and does so again whenever the lease is lost."""

    def __init__(
        self,
        *,
        lease_ms: int,
        register: Callable[[WorkerId], Awaitable[None]],
        leave: Callable[[WorkerId], Awaitable[None]],
        beat: Callable[[WorkerId], Awaitable[None]],
        on_lost: Callable[[], None],
    ) -> None:
        """Set it up; nothing happens before `run`.

        Args:
            lease_ms: how long the pool waits for a beat.
            register: enters the pool under the id.
            leave: signs an id off.
            beat: renews the lease of the id; raises LeaseLost.
            on_lost: drops all that the lost id held. The new id is set already.
        """
        self.wid = new_worker_id()
        """The present id; what was started under another one is void."""
        self.is_held = asyncio.Event()
        """Set while the id is registered."""
        self.num_losses = 0
        self._is_lost = asyncio.Event()
        self._beat_s = lease_ms / 1000 / BEATS_PER_LEASE
        self._register = register
        self._leave = leave
        self._beat = beat
        self._on_lost = on_lost

    async def take(self) -> None:
        """Register under the present id.

        Raises:
            LorikeetError: the pool doesn't accept this worker.
        """
        wid = self.wid
        await self._register(wid)
        if wid != self.wid:  # lost while it was being registered: nobody would beat for it
            await self._leave(wid)
            return
        self.is_held.set()
        self._is_lost.clear()
        log.info("worker_registered", worker=wid)

    async def run(self) -> None:
        """Hold the lease until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._beat_s):
                    await self._is_lost.wait()
            await self._tend()

    def lose(self, wid: WorkerId) -> None:
        """Give up the id `wid`, as the pool has; nothing happens if that is known already."""
        if wid != self.wid:
            return
        log.warning("lease_lost", worker=wid)
        self.num_losses += 1
        self.is_held.clear()
        self._is_lost.set()
        self.wid = new_worker_id()
        self._on_lost()

    async def _tend(self) -> None:
        wid = self.wid
        try:
            if self.is_held.is_set():
                await self._beat(wid)
            else:
                await self.take()
        except LeaseLost:
            self.lose(wid)
        except RedisUnavailable as error:
            log.warning("beat_failed", error=str(error))
            await asyncio.sleep(RETRY_S)


def new_worker_id() -> WorkerId:
    """An id that no worker had or will have."""
    return WorkerId(f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex}")
