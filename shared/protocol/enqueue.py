"""Options and outcome of enqueueing a job."""

import hashlib
from dataclasses import dataclass

from shared.protocol.ids import JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyKey:
    """Key with which a client marks requests that must run only once.

    Requests of one tenant with the same key share one job. The pool forgets the key together with
    the job.
    """

    key: str
    """Value of the header `Idempotency-Key`."""
    body_digest: str
    """Digest of the request. A request with the same key and another digest is refused."""

    @property
    def digest(self) -> str:
        """Digest of `key`, which is part of the name of a Redis key."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnqueueOptions:
    """Properties of a request that don't change its answer."""

    idempotency: IdempotencyKey | None = None
    """Key of the request. None if each request is a job of its own."""
    keeps_running: bool = False
    """Whether the job runs to its end even if no client waits for its answer."""
    weight: float = 1.0
    """Weight of the job's tenant. Fair queueing gives busy tenants shares in these proportions."""


@dataclass(frozen=True, slots=True)
class Enqueued:
    """Outcome of enqueueing a job."""

    id: JobId
    """Id of the job that answers the request."""
    position: int
    """Position in the queue of the job's version, from 1; 0 if the job isn't new."""
    is_new: bool = True
    """Whether this request created the job. If not, an earlier request with the same key did."""
