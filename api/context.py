"""What one API process holds; routes get it as a dependency."""

import asyncio
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from api.cached_read import Recent
from api.follow.cancel_queue import Cancels
from api.follow.follower import Shown
from api.follow.reply_hub import Replies
from api.metrics.metrics import Metrics
from api.metrics.pool_metrics import PoolSnapshot
from shared.protocol.ids import ApiId
from shared.protocol.limits import Limits
from shared.settings import ApiSettings
from shared.store.adapter_views import AdapterViews
from shared.store.inspections import Inspections
from shared.store.queue import Queue
from shared.store.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The parts of one running app."""

    settings: ApiSettings
    api_id: ApiId
    limits: Limits
    queue: Queue
    registry: Registry
    shown: Shown
    replies: Replies
    cancels: Cancels
    metrics: Metrics
    adapter_views: AdapterViews
    inspections: Inspections
    inspecting: asyncio.Semaphore
    """Bounds how many connections wait for workers to read adapters."""
    not_ready_reason: Recent[str | None]
    """Why no request can be served now; None if one can."""
    pool_snapshot: Recent[PoolSnapshot | None]
    """The pool's figures; None while Redis is out of reach."""
    has_keys: bool
    """Whether clients need API keys."""


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def _tenant(request: Request) -> str:
    tenant: str = request.state.tenant
    return tenant


InTenant = Annotated[str, Depends(_tenant)]
"""In whose name the request comes, as a parameter of a route that needs a key."""
InContext = Annotated[Context, Depends(_context)]
"""The app's context, as a parameter of a route."""
