"""Decides how many replicas must have a write before it is acknowledged. Pure."""

from dataclasses import dataclass

LEAVING_S = 20.0
"""Time in seconds for which a replica that has left is still waited for.

A replica that leaves may have been promoted, while the old master goes on with the other replicas.
Sentinel makes the old master a replica within about ten seconds. This time is longer, so the old
master acknowledges nothing that the new one lacks."""


@dataclass(frozen=True, slots=True)
class Replication:
    """What a master reports about its replicas."""

    history: str
    """Replication id of the master. It changes when another server becomes the master."""
    num_replicas: int
    """Number of replicas that are in sync and answer."""


class ReplicaCount:
    """Number of replicas of the current master, which falls `LEAVING_S` after a replica left."""

    def __init__(self) -> None:
        self._history = ""
        self._count = 0
        self._fewer_since_s: float | None = None
        self._most_since = 0

    def update(self, seen: Replication, now_s: float) -> int:
        """Return the number of replicas to wait for.

        Args:
            seen: current report of the master.
            now_s: time of the report, in seconds of a monotonic clock.
        """
        if seen.history != self._history or seen.num_replicas >= self._count:
            self._history = seen.history
            self._set(seen.num_replicas)
            return self._count
        if self._fewer_since_s is None:
            self._fewer_since_s = now_s
        self._most_since = max(self._most_since, seen.num_replicas)
        if now_s - self._fewer_since_s >= LEAVING_S:
            self._set(self._most_since)
        return self._count

    def _set(self, count: int) -> None:
        self._count = count
        self._fewer_since_s = None
        self._most_since = 0
