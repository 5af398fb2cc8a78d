"""Sizes and figures of the measurement of fairness."""

from dataclasses import dataclass

HEAVY, GOLD, SILVER = "heavy", "gold", "silver"
"""Names of the tenant with many jobs, and of the two tenants with weights."""
GOLD_WEIGHT = 4
"""Weight of `GOLD`. All other tenants have the weight 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of the measurement."""

    light_tenants: int
    light_jobs: int
    """Number of jobs of each light tenant, all sent at once."""
    heavy_jobs: int
    """Number of jobs of the heavy tenant, all of which are sent before those of the others."""
    weighted_jobs: int
    """Number of jobs of each of the two tenants with weights."""
    tokens_per_job: int
    step_ms: int
    sequences: int
    """Number of jobs that run at the same time."""
    rounds: int

    @property
    def light(self) -> list[str]:
        """Names of the light tenants."""
        return [f"light-{number}" for number in range(self.light_tenants)]


FULL = Sizes(
    light_tenants=10,
    light_jobs=10,
    heavy_jobs=1000,
    weighted_jobs=600,
    tokens_per_job=8,
    step_ms=25,
    sequences=8,
    rounds=3,
)
QUICK = Sizes(
    light_tenants=2,
    light_jobs=3,
    heavy_jobs=30,
    weighted_jobs=40,
    tokens_per_job=4,
    step_ms=10,
    sequences=2,
    rounds=1,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Figures of one round. Waiting times are mean seconds from sending to the first token."""

    alone_s: dict[str, float]
    """Waiting time of each light tenant without the heavy one."""
    beside_s: dict[str, float]
    """Waiting time of each light tenant beside the heavy one."""
    gold_per_silver: float
    """Jobs of the tenant with weight 4 per job of the tenant with weight 1, while both wait."""

    @property
    def ratios(self) -> dict[str, float]:
        """For each light tenant, its waiting time beside the heavy one divided by that without."""
        return {tenant: self.beside_s[tenant] / self.alone_s[tenant] for tenant in self.alone_s}

    def describe(self) -> str:
        """Return the figures as one line."""
        return (
            f"waiting times up to {max(self.ratios.values()):.2f} x, "
            f"{GOLD} {self.gold_per_silver:.2f} jobs per job of {SILVER}"
        )
