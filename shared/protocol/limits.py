"""What may wait in a pool, as a front end sets it."""

from dataclasses import dataclass

from shared.settings import ApiSettings

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may wait, and how long a finished job is kept."""

    max_waiting: int
    max_waiting_adapter: int
    max_waiting_tenant: int
    retain_ms: int
    max_bytes: int = 1024 * MIB
    """Bytes of unfinished requests."""
    max_bytes_tenant: int = 256 * MIB
    """Those of one tenant."""

    @classmethod
    def of(cls, settings: ApiSettings) -> "Limits":
        """Those that a front end has."""
        return cls(
            max_waiting=settings.max_waiting,
            max_waiting_adapter=settings.max_waiting_adapter,
            max_waiting_tenant=settings.max_waiting_tenant,
            retain_ms=int(settings.retain_s * 1000),
            max_bytes=settings.max_waiting_mb * MIB,
            max_bytes_tenant=settings.max_waiting_tenant_mb * MIB,
        )
