"""Limits that a front end applies when it enqueues jobs."""

from dataclasses import dataclass

from shared.settings import ApiSettings

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """Limits on waiting jobs and on bytes of unfinished requests; lifetime of finished jobs."""

    max_waiting: int
    """Maximum number of waiting jobs in the pool."""
    max_waiting_adapter: int
    """Maximum number of waiting jobs of one adapter version."""
    max_waiting_tenant: int
    """Maximum number of waiting jobs of one tenant."""
    retain_ms: int
    """Milliseconds for which a finished job can be looked up."""
    max_bytes: int = 1024 * MIB
    """Maximum total bytes of the pool's unfinished requests."""
    max_bytes_tenant: int = 256 * MIB
    """Maximum total bytes of one tenant's unfinished requests."""
    retain_bytes: int = 512 * MIB
    """Maximum memory of all ended jobs, in bytes. Those that expire first are deleted first."""

    @classmethod
    def of(cls, settings: ApiSettings) -> "QueueLimits":
        """Create the limits from a front end's settings."""
        return cls(
            max_waiting=settings.max_waiting,
            max_waiting_adapter=settings.max_waiting_adapter,
            max_waiting_tenant=settings.max_waiting_tenant,
            retain_ms=int(settings.retain_s * 1000),
            max_bytes=settings.max_waiting_mb * MIB,
            max_bytes_tenant=settings.max_waiting_tenant_mb * MIB,
            retain_bytes=settings.retain_mb * MIB,
        )
