"""Faults of front ends."""

import signal

from ops.lab.chaos.faults.fault import Scene
from ops.lab.chaos.faults.processes import Kill, ProcessFault, Suspend


class ApiFault(ProcessFault):
    """A fault of one front end."""

    subject = "front end"

    def __init__(self, scene: Scene) -> None:
        self._api = scene.rng.choice(scene.pool.apis)
        super().__init__(scene, self._api)

    async def has_recovered(self) -> bool:
        """Return whether the front end is ready."""
        return await self._api.is_ready()


class KillApi(ApiFault, Kill):
    """Kills a front end with SIGKILL."""

    kind = "kill-api"


class DrainApi(ApiFault):
    """Stops a front end with SIGTERM, after which it ends its streams and exits."""

    kind = "drain-api"

    async def inject(self) -> None:
        """Ask the front end to stop."""
        self._process.signal(signal.SIGTERM)

    async def evidence(self) -> str:
        """Return a note if the process has exited by itself, otherwise an empty text."""
        return f"drained, {self._end()}" if self._end() == "exit code 0" else ""


class StopApi(ApiFault, Suspend):
    """Suspends a front end. In most cases, it stays suspended until its clients give it up."""

    kind = "stop-api"
    hold_s = (4.0, 16.0)
