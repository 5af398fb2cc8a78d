"""How much memory adapters may take, and where it is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterBudgets:
    """Bytes on the device, and in the host's memory.

    A CPU computes adapters wherever they lie in the host's memory, so that copies of them would
    be of no use: there, one pool has both budgets, and counts as the host's what is beyond the
    device's.
    """

    device: int
    host: int
    is_one_memory: bool
    """Whether the device is a CPU."""

    @property
    def pool(self) -> int:
        """Bytes for resident adapters."""
        return self.device + self.host if self.is_one_memory else self.device

    @property
    def copies(self) -> int:
        """Bytes for copies that wait to become resident."""
        return 0 if self.is_one_memory else self.host

    def used(self, pool: int, copies: int) -> tuple[int, int]:
        """What the pool's bytes and the copies' are of the device's budget, and of the host's."""
        beyond = max(0, pool - self.device)
        return pool - beyond, copies + beyond
