"""Faults of front ends."""

import signal

from ops.lab.chaos.cluster.pool import Api
from ops.lab.chaos.faults.fault import Fault, Scene


class ApiFault(Fault):
    """A fault of one front end."""

    subject = "front end"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._api: Api = self._rng.choice(self._pool.apis)
        self.target = self._api.name
        self._num_ends = len(self._api.ends)

    async def has_recovered(self) -> bool:
        """Return whether the front end is ready."""
        return await self._api.is_ready()

    def _end(self) -> str:
        """Return what ended the front end since this fault was created; empty if nothing did."""
        ends = self._api.ends[self._num_ends :]
        return ends[0].reason if ends else ""


class KillApi(ApiFault):
    """SIGKILL."""

    kind = "kill-api"

    async def inject(self) -> None:
        """Kill the front end."""
        self._api.signal(signal.SIGKILL)

    async def evidence(self) -> str:
        """Return what ended the process."""
        return f"ended by {self._end()}" if self._end() == "SIGKILL" else ""


class DrainApi(ApiFault):
    """SIGTERM, after which the front end ends its streams and exits."""

    kind = "drain-api"

    async def inject(self) -> None:
        """Ask the front end to stop."""
        self._api.signal(signal.SIGTERM)

    async def evidence(self) -> str:
        """Return that the process has ended by itself."""
        return f"drained, {self._end()}" if self._end() == "exit code 0" else ""


class StopApi(ApiFault):
    """SIGSTOP, in most cases until clients give the front end up."""

    kind = "stop-api"
    hold_s = (4.0, 16.0)

    async def inject(self) -> None:
        """Suspend the front end."""
        self._api.signal(signal.SIGSTOP)

    async def evidence(self) -> str:
        """Return whether the process is suspended."""
        return "suspended" if self._api.is_suspended else ""

    async def heal(self) -> None:
        """Continue the front end."""
        self._api.signal(signal.SIGCONT)
