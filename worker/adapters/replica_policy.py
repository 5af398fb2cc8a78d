"""When a worker gives up an adapter that other workers hold too. Policy only."""

from dataclasses import dataclass, replace

from shared.protocol.queue_replies import ReplicaStanding

KEPT_STEALS = 20
"""Time for which a replica must be surplus before it is given up, as a multiple of `steal_ms`.

This is at least 30 times the load time, so fluctuating demand doesn't cause constant loads.
"""


@dataclass(frozen=True, slots=True)
class Replica:
    """A version that was loaded while another worker held it."""

    surplus_since_ms: float | None = None
    """Monotonic time in ms when the other holders began to suffice; None if they don't suffice."""

    def is_due(self, now_ms: float, steal_ms: float) -> bool:
        """Whether the other holders have sufficed for long enough to give this replica up."""
        since_ms = self.surplus_since_ms
        return since_ms is not None and since_ms <= now_ms - KEPT_STEALS * steal_ms

    def after(self, standing: ReplicaStanding, now_ms: float) -> "Replica | None":
        """Return the replica updated by `standing`, or None if it is no longer a replica."""
        match standing:
            case ReplicaStanding.GONE | ReplicaStanding.SOLE:
                return None
            case ReplicaStanding.SURPLUS if self.surplus_since_ms is None:
                return replace(self, surplus_since_ms=now_ms)
            case ReplicaStanding.SURPLUS:
                return self
            case _:
                return replace(self, surplus_since_ms=None)
