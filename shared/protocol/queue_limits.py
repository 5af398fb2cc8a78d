"""Limits that a front end sets for jobs that it enqueues."""

from dataclasses import dataclass

from shared.settings import ApiSettings

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """Most jobs and bytes that may wait, and how long a finished job is kept."""

    max_waiting: int
    """Waiting jobs of the pool."""
    max_waiting_adapter: int
    """Waiting jobs of one adapter version."""
    max_waiting_tenant: int
    """Waiting jobs of one tenant."""
    retain_ms: int
    """Time for which a finished job can be looked up."""
    max_bytes: int = 1024 * MIB
    """Bytes of the pool's unfinished requests."""
    max_bytes_tenant: int = 256 * MIB
    """Bytes of one tenant's unfinished requests."""

    @classmethod
    def of(cls, settings: ApiSettings) -> "QueueLimits":
        """Return the limits in a front end's settings."""
        return cls(
            max_waiting=settings.max_waiting,
            max_waiting_adapter=settings.max_waiting_adapter,
            max_waiting_tenant=settings.max_waiting_tenant,
            retain_ms=int(settings.retain_s * 1000),
            max_bytes=settings.max_waiting_mb * MIB,
            max_bytes_tenant=settings.max_waiting_tenant_mb * MIB,
        )
