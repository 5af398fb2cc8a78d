"""Progress of a job, as its follower reports it. Pure."""

from collections.abc import Iterable

from api.follow.transcript import Delta
from shared.protocol.events import Admitted

Update = Admitted | Delta
"""A worker admitted the job, or one choice has new output."""


def deltas_of(updates: Iterable[Update]) -> list[Delta]:
    """Return the updates that have new output."""
    return [update for update in updates if isinstance(update, Delta)]
