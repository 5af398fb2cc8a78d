"""Progress of an adapter that a worker fetches from a URL, as clients see it. Pure."""

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """What a worker does with an adapter that isn't registered yet."""

    RECEIVING = "receiving"
    """The worker receives the adapter's bytes."""
    UNPACKING = "unpacking"
    """The worker unpacks the archive."""
    CHECKING = "checking"
    """The worker reads the files and checks that it can serve them exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """Progress of one adapter."""

    source: str
    """Source of the adapter, without the query of its URL."""
    phase: Phase
    num_bytes: int
    """Number of received bytes."""
    total: int | None = None
    """Number of bytes to receive; None if the source doesn't say."""
