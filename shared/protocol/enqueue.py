"""Limits, options and outcome of enqueueing a job."""

import hashlib
from dataclasses import dataclass

from shared.protocol.access.rates import Rate
from shared.protocol.ids import JobId

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """Limits on waiting jobs and unfinished requests, and how long ended jobs are kept."""

    max_waiting: int
    max_waiting_adapter: int
    max_waiting_tenant: int
    retain_ms: int
    """Milliseconds for which a finished job can be looked up."""
    max_bytes: int = 1024 * MIB
    """Maximum total bytes of the pool's unfinished requests."""
    max_bytes_tenant: int = 256 * MIB
    """Maximum total bytes of one tenant's unfinished requests."""
    retain_bytes: int = 512 * MIB
    """Maximum memory of all ended jobs, in bytes. Above it, the tenant whose ended jobs use the
    most memory loses its oldest ended jobs."""
    usage_days: int = 400
    """Number of days for which the ledger of usage is kept."""
    unanswered_days: int = 7
    """Number of days for which records of jobs without an answer are kept."""
    unanswered_bytes: int = 64 * MIB
    """Maximum memory of the records of jobs without an answer, in bytes. Above it, the tenant whose
    records use the most memory loses its oldest records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyKey:
    """Key that identifies repetitions of a request, so that the request runs only once.

    Requests of one tenant with the same key share one job. The key expires together with the job.
    """

    key: str
    """Value of the header `Idempotency-Key`."""
    body_digest: str
    """Digest of the request's body. A request with the same key and another digest is refused."""

    @property
    def digest(self) -> str:
        """Digest of `key`, for the name of a Redis key."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnqueueOptions:
    """Properties of a request that don't change its answer."""

    idempotency: IdempotencyKey | None = None
    """Idempotency key of the request, or None."""
    keeps_running: bool = False
    """Whether the job runs to its end even if no client waits for its answer."""
    weight: float = 1.0
    """Weight of the job's tenant. Fair queueing serves tenants in proportion to their weights."""
    key_id: str = ""
    """Id of the stored API key that the job is charged to. Empty for keys in the settings."""
    books_pool: str = ""
    """Name of the pool that has the stored API key and the job's ledger. Empty if it is the job's
    own pool."""
    only_repeats: bool = False
    """Whether to refuse the request unless an earlier one with its idempotency key has a job."""
    retry_of: JobId | None = None
    """Ended job that the new job repeats. Its stored request is deleted in the same step. If no
    stored request exists any more, the new job is refused as a duplicate."""
    letter: str = ""
    """Id of the dead letter of `retry_of`. Empty if that job is no dead letter."""


@dataclass(frozen=True, slots=True)
class Enqueued:
    """Outcome of enqueueing a job."""

    id: JobId
    """Id of the job that answers the request."""
    position: int
    """Position in the queue of the job's version, from 1; 0 if the job isn't new."""
    is_new: bool = True
    """Whether this request created the job. If not, an earlier request with the same idempotency
    key created it."""
    rates: tuple[Rate, ...] = ()
    """Use of the limits of the request's API key, including this request."""
