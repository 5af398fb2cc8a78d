"""Faults of the control process."""

import signal

from ops.lab.chaos.faults.fault import Fault, Scene

STARTED = "control_started"


class ControlFault(Fault):
    """A fault of the control process."""

    subject = "control"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._control = self._pool.control
        self.target = self._control.name
        self._num_ends = len(self._control.ends)
        self._num_starts = self._control.log_text().count(STARTED)


class KillControl(ControlFault):
    """SIGKILL."""

    kind = "kill-control"

    async def inject(self) -> None:
        """Kill the control process."""
        self._control.signal(signal.SIGKILL)

    async def evidence(self) -> str:
        """Return what ended the process."""
        ends = self._control.ends[self._num_ends :]
        return "ended by SIGKILL" if ends and ends[0].reason == "SIGKILL" else ""

    async def has_recovered(self) -> bool:
        """Return whether the control process has started again."""
        return self._control.log_text().count(STARTED) > self._num_starts


class StopControl(ControlFault):
    """SIGSTOP for longer than a lease."""

    kind = "stop-control"
    hold_s = (4.0, 8.0)

    async def inject(self) -> None:
        """Suspend the control process."""
        self._control.signal(signal.SIGSTOP)

    async def evidence(self) -> str:
        """Return whether the process is suspended."""
        return "suspended" if self._control.is_suspended else ""

    async def heal(self) -> None:
        """Continue the control process."""
        self._control.signal(signal.SIGCONT)

    async def has_recovered(self) -> bool:
        """Return whether the process runs."""
        return self._control.is_running and not self._control.is_suspended
