"""Decides when a worker gives up an adapter that other workers also hold. Policy only."""

from dataclasses import dataclass, replace

from shared.protocol.queue_replies import ReplicaStanding

KEPT_STEALS = 20
"""A replica is given up if the pool hasn't needed it for this multiple of `steal_ms`.

This time is at least 30 times as long as a mean load. Therefore fluctuating demand doesn't cause a
replica to be given up and loaded again in quick succession.
"""


@dataclass(frozen=True, slots=True)
class Replica:
    """A version that was loaded while another worker held it."""

    surplus_since_ms: float | None = None
    """Monotonic time in ms since which the pool hasn't needed this replica; None if it needs it."""

    def is_due(self, now_ms: float, steal_ms: float) -> bool:
        """Return whether the pool hasn't needed this replica for KEPT_STEALS * `steal_ms`."""
        since_ms = self.surplus_since_ms
        return since_ms is not None and since_ms <= now_ms - KEPT_STEALS * steal_ms

    def after(self, standing: ReplicaStanding, now_ms: float) -> "Replica | None":
        """Return this replica with `surplus_since_ms` updated for the newest `standing`.

        Return None if this worker no longer holds the version, or is the only one that does.
        """
        match standing:
            case ReplicaStanding.GONE | ReplicaStanding.SOLE:
                return None
            case ReplicaStanding.SURPLUS if self.surplus_since_ms is None:
                return replace(self, surplus_since_ms=now_ms)
            case ReplicaStanding.SURPLUS:
                return self
            case _:
                return replace(self, surplus_since_ms=None)
