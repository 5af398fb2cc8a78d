"""Clients that do more than read their stream: they pause, leave or cancel."""

import array
import asyncio
import fcntl
import termios
from abc import abstractmethod
from random import Random
from typing import Any

import httpx

from ops.lab.chaos.cluster.commands import DISCONNECT_GRACE_S
from ops.lab.chaos.load.exchange import Exchange
from ops.lab.chaos.load.front_ends import FrontEnds
from ops.lab.chaos.load.requests import ChaosRequest, Manner
from ops.lab.chaos.load.text_checks import SimulatedTexts

PAUSE_S = (2.0, 8.0)
STALL_S = (12.0, 20.0)
AWAY_S = (0.2, 3.0)
LONG_AWAY_S = (DISCONNECT_GRACE_S + 1.0, DISCONNECT_GRACE_S + 5.0)


class _Leaves(Exception):
    """Raised in a client's exchange to close the client's connection."""


class ActingExchange(Exchange):
    """A client that does something once, after a random number of parts of its stream."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        question = self.request.question
        self._acts_at = self._rng.randint(1, max(1, question.n * question.num_tokens * 2 // 3))
        self._has_acted = False

    async def on_text(self, response: httpx.Response) -> None:
        """Call `act` once, after a random number of parts."""
        if not self._has_acted and len(self.record.arrivals_ms) >= self._acts_at:
            self._has_acted = True
            await self.act(response)

    @abstractmethod
    async def act(self, response: httpx.Response) -> None:
        """Do something while the stream is open."""


class PausingExchange(ActingExchange):
    """A client that stops reading for a while."""

    pause_s = PAUSE_S

    async def act(self, response: httpx.Response) -> None:
        """Stop reading for a while."""
        await asyncio.sleep(self._rng.uniform(*self.pause_s))


class StallingExchange(PausingExchange):
    """A client that stops reading for so long that the front end can't send any more."""

    pause_s = STALL_S

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._acts_at = 1
        self.unread: httpx.Response | None = None
        """The response that the client doesn't read; None while it reads."""

    async def act(self, response: httpx.Response) -> None:
        """Stop reading for a long time."""
        self.unread = response
        await super().act(response)
        self.unread = None

    @property
    def num_unread_bytes(self) -> int:
        """Number of bytes that have arrived and that the client doesn't read."""
        return num_unread_bytes(self.unread) if self.unread else 0


class LeavingExchange(ActingExchange):
    """A client that closes its connection and comes back."""

    away_s = AWAY_S

    async def act(self, response: httpx.Response) -> None:
        """Leave the stream."""
        raise _Leaves

    async def _stream(self) -> bool:
        try:
            return await super()._stream()
        except _Leaves:
            await asyncio.sleep(self._rng.uniform(*self.away_s))
            return False


class StayingAwayExchange(LeavingExchange):
    """A client that comes back after the grace period."""

    away_s = LONG_AWAY_S


class CancellingExchange(ActingExchange):
    """A client that cancels its job."""

    async def act(self, response: httpx.Response) -> None:
        """Cancel the job."""
        await self._repeat(self._cancel)

    async def _cancel(self) -> bool:
        return await self._is_accepted(await self._http.post(f"/v1/jobs/{self.job}/cancel"))


_BY_MANNER: dict[Manner, type[Exchange]] = {
    Manner.PAUSE: PausingExchange,
    Manner.LEAVE: LeavingExchange,
    Manner.STAY_AWAY: StayingAwayExchange,
    Manner.CANCEL: CancellingExchange,
    Manner.STALL: StallingExchange,
}


def exchange_of(
    request: ChaosRequest, front_ends: FrontEnds, texts: SimulatedTexts, rng: Random
) -> Exchange:
    """Return the exchange of a client that behaves in the request's manner."""
    return _BY_MANNER.get(request.manner, Exchange)(request, front_ends, texts, rng)


def num_unread_bytes(response: httpx.Response) -> int:
    """Return the number of bytes that have arrived on a connection and aren't read yet."""
    connection = response.extensions["network_stream"].get_extra_info("socket")
    count = array.array("i", [0])
    fcntl.ioctl(connection.fileno(), termios.FIONREAD, count)
    return count[0]
