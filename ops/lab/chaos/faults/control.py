"""Faults of the control process."""

from ops.lab.chaos.faults.fault import Scene
from ops.lab.chaos.faults.processes import Kill, ProcessFault, Suspend

STARTED = "control_started"


class ControlFault(ProcessFault):
    """A fault of the control process."""

    subject = "control"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene, scene.pool.control)
        self._num_starts = self._process.log_text().count(STARTED)


class KillControl(ControlFault, Kill):
    """Kills the control process with SIGKILL."""

    kind = "kill-control"

    async def has_recovered(self) -> bool:
        """Return whether the control process has started again."""
        return self._process.log_text().count(STARTED) > self._num_starts


class StopControl(ControlFault, Suspend):
    """Suspends the control process for longer than a lease."""

    kind = "stop-control"
    hold_s = (4.0, 8.0)

    async def has_recovered(self) -> bool:
        """Return whether the process runs."""
        return self._process.is_running and not self._process.is_suspended
