"""Filters of jobs, for lists and for actions on many jobs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from shared.protocol.ids import AdapterVersion, JobId, name_of
from shared.protocol.jobs import JobState

UNANSWERED = frozenset((JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED, JobState.DEAD))
"""States of jobs that ended without an answer. Their records outlive them."""


class Traits(NamedTuple):
    """The properties of a job that a filter checks."""

    id: JobId
    state: JobState
    model: str
    version: AdapterVersion
    error_code: str
    """Code of the job's error; empty if it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Conditions that select the jobs for an operation. A job must meet all that aren't None."""

    tenant: str | None
    """The jobs' tenant; None for all tenants."""
    states: frozenset[JobState] | None = None
    model: str | None = None
    """Model name in the jobs' requests, or name of the adapter or base model that serves them."""
    error_code: str | None = None
    min_age_s: float | None = None
    """Minimum number of seconds since the acceptance of a job."""
    max_age_s: float | None = None
    allows: Callable[[str], bool] = lambda _: True
    """Returns whether jobs of the model with a given name may be seen."""

    def matches(self, job: Traits) -> bool:
        """Return whether a job meets all conditions except those on tenant and age.

        The caller has already checked these two.
        """
        name = name_of(job.version)
        return (
            (self.states is None or job.state in self.states)
            and self.model in (None, job.model, name)
            and self.error_code in (None, job.error_code)
            and self.allows(name)
        )
