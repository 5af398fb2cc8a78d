"""The context: objects that all requests for one pool share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request

from api.access.stored_keys import StoredKeys
from api.follow.cancel_queue import CancelQueue
from api.follow.follower import ReadCheckpoints
from api.follow.presence import Presence
from api.follow.reply_hub import ReplyHub
from api.http.turns.fair_slots import FairSlots
from api.http.turns.turns import Turns
from api.metrics.metrics import Metrics
from api.metrics.pool_metrics import PoolSnapshot
from api.pool_state.feed import PoolFeed
from api.pool_state.state import PoolState
from api.pools.file_store import FileStore
from api.pools.model_cache import ModelCache
from api.pools.pool_status import CachedRead, Readiness
from shared.protocol.access.rights import Access
from shared.protocol.enqueue import QueueLimits
from shared.protocol.ids import ApiId
from shared.settings import ApiSettings
from shared.store.access.ledger import Ledger
from shared.store.batches.batches import Batches
from shared.store.batches.files import StoredFiles
from shared.store.calls.tokenizations import Tokenizations
from shared.store.dead_letters import DeadLetters
from shared.store.inspections import Inspections
from shared.store.queue import Queue
from shared.store.registry import Registry
from shared.store.sources.progress import StagingProgress
from shared.store.uploads import Uploads
from shared.store.versions.candidates import Candidates
from shared.store.versions.changes import Changes
from shared.store.versions.pins import Pins
from shared.store.versions.shadows import Shadows
from shared.store.views.adapter_views import AdapterViews
from shared.store.views.pool_views import PoolViews

if TYPE_CHECKING:
    from api.adapters.on_demand import OnDemand
    from api.adapters.shadow_copies import ShadowCopies
    from shared.tracing.tracer import Tracer


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Objects that all requests for one pool share in a running app."""

    settings: ApiSettings
    api_id: ApiId
    limits: QueueLimits
    queue: Queue
    views: PoolViews
    registry: Registry
    models: ModelCache
    """Models of the registry that requests have named."""
    read_checkpoints: ReadCheckpoints
    replies: ReplyHub
    cancels: CancelQueue
    presence: Presence
    metrics: Metrics
    adapter_views: AdapterViews
    letters: DeadLetters
    inspections: Inspections
    uploads: Uploads
    staging: StagingProgress
    on_demand: "OnDemand"
    """Registers unknown adapters at their first request."""
    candidates: Candidates
    pins: Pins
    changes: Changes
    """The audit log."""
    shadows: Shadows
    shadow_copies: "ShadowCopies"
    """Enqueues copies of jobs for shadows."""
    inspection_slots: FairSlots
    """Limits the number of concurrent inspections, because each one uses a Redis connection."""
    tokenizations: Tokenizations
    turns: Turns
    """Limits the number of requests that are accepted at the same time."""
    call_slots: FairSlots
    """Limits the number of concurrent calls for tokenization."""
    readiness: CachedRead[Readiness]
    """Whether the pool accepts jobs, and whether workers compute them."""
    pool_snapshot: CachedRead[PoolSnapshot | None]
    """State of the pool for the metrics, or None if Redis is unavailable."""
    pool_state: CachedRead[PoolState]
    """State of the pool for its operators."""
    pool_body: Callable[[PoolState], dict[str, Any]]
    """Returns the body that describes a state of the pool, without its history."""
    pool_feed: PoolFeed
    """Open streams of the pool's state."""
    file_store: FileStore | None
    """Contents of files. None if the operator hasn't set --file-store."""
    upload_slots: FairSlots
    """Limits the number of files that are received at the same time."""
    files: StoredFiles
    batches: Batches
    stored_keys: StoredKeys
    """API keys that Redis stores."""
    ledger: Ledger
    """What tenants have used."""
    tracer: "Tracer | None"
    """Records requests as spans. None if tracing is off."""


# These functions are coroutines because FastAPI calls others in a thread, which takes longer.


async def _context(request: Request) -> Context:
    context: Context = await request.app.state.pools.of_request(request)
    return context


async def _tenant(request: Request) -> str:
    tenant: str = request.state.tenant
    return tenant


async def _access(request: Request) -> Access:
    access: Access = request.state.access
    return access


InTenant = Annotated[str, Depends(_tenant)]
"""Type of a route parameter that receives the tenant of the request."""
InAccess = Annotated[Access, Depends(_access)]
"""Type of a route parameter that receives the rights of the request."""
InContext = Annotated[Context, Depends(_context)]
"""Type of a route parameter that receives the context of the request's pool.

That is the pool in the path of the request, or of the adapter or job that the path names. Routes
whose body names the model ask `api.pools.pools` for its context.
"""
