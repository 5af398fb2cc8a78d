"""Cached states of one pool: for probes, for Prometheus, and for operators."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from api.metrics.pool_metrics import PoolSnapshot
from api.pool_state.feed import PoolFeed
from api.pool_state.state import PoolState
from api.pools.pool_status import CachedRead, Readiness


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolReports:
    """States of one pool that many clients ask for."""

    readiness: CachedRead[Readiness]
    """Whether the pool accepts jobs, and whether workers compute them."""
    snapshot: CachedRead[PoolSnapshot | None]
    """State for the metrics, or None if Redis is unavailable."""
    state: CachedRead[PoolState]
    """State for operators."""
    body_of: Callable[[PoolState], dict[str, Any]]
    """Returns the body that describes a state, without its history."""
    feed: PoolFeed
    """Open streams of the state."""
