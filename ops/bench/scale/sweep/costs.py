"""Splits the CPU time of each part into a constant, a cost per job and a cost per token."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """CPU use of one part during one load."""

    seconds: float
    jobs: float
    tokens: float
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """CPU time of one part. A job's own tokens aren't part of the cost per job."""

    idle_cores: float
    """CPU seconds per second without any load."""
    us_per_job: float
    us_per_token: float

    def cores(self, jobs_per_s: float, tokens_per_s: float) -> float:
        """Return the CPU seconds per second at a load."""
        return self.idle_cores + 1e-6 * (
            jobs_per_s * self.us_per_job + tokens_per_s * self.us_per_token
        )


def split_costs(uses: Sequence[Use], *, idle_cores: float | None = None) -> Costs:
    """Return the costs with the least squared errors of CPU seconds.

    At least three loads with different ratios of seconds, jobs and tokens are needed. Two are
    enough if `idle_cores` is given.
    """
    cpu_s = np.array([use.cpu_s for use in uses])
    columns = [[use.jobs for use in uses], [use.tokens for use in uses]]
    seconds = np.array([use.seconds for use in uses])
    if idle_cores is None:
        (idle_cores, per_job, per_token), *_ = np.linalg.lstsq(
            np.array([seconds, *columns]).T, cpu_s, rcond=None
        )
    else:
        (per_job, per_token), *_ = np.linalg.lstsq(
            np.array(columns).T, cpu_s - idle_cores * seconds, rcond=None
        )
    return Costs(
        idle_cores=float(idle_cores),
        us_per_job=1e6 * float(per_job),
        us_per_token=1e6 * float(per_token),
    )
