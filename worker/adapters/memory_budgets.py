"""Memory budgets of adapters on the device and in host memory."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterBudgets:
    """Memory budgets of adapters, in bytes.

    On a CPU, resident adapters are already in host memory, so copies of them would be useless.
    Therefore a single pool gets both budgets. The pool's bytes count towards the device budget
    until that budget is used up, and then towards the host budget.
    """

    device: int
    host: int
    is_one_memory: bool
    """Whether the device is a CPU."""

    @property
    def pool(self) -> int:
        """Budget of resident adapters, in bytes."""
        return self.device + self.host if self.is_one_memory else self.device

    @property
    def copies(self) -> int:
        """Budget of the copies of adapters in host memory, in bytes."""
        return 0 if self.is_one_memory else self.host

    def used(self, pool: int, copies: int) -> tuple[int, int]:
        """Return the used bytes of the device budget and of the host budget.

        Resident adapters take `pool` bytes, and copies in host memory take `copies` bytes.
        """
        beyond = max(0, pool - self.device)
        return pool - beyond, copies + beyond
