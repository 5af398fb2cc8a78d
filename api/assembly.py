"""Assembles the parts of a front end that serve a pool."""

from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from api.access.stored_keys import StoredKeys
from api.adapters.inspection import Inspector
from api.adapters.new_versions import NewVersions
from api.adapters.on_demand import OnDemand
from api.adapters.shadow_copies import ShadowCopies
from api.adapters.shown_adapters import ShownAdapters
from api.adapters.upload import AdapterUploads
from api.answers.parts import Following, Intake
from api.answers.tokenization import MAX_CALLS, MAX_CALLS_OF_TENANT, TokenizerCalls
from api.batches.own_batches import TenantBatches
from api.files.file_store import FileStore
from api.files.own_files import TenantFiles
from api.files.upload import MAX_UPLOADS, MAX_UPLOADS_TENANT, FileUploads
from api.follow.cancel_queue import CancelQueue
from api.follow.presence import Presence
from api.follow.reply_hub import ReplyHub
from api.http.turns.fair_slots import FairSlots
from api.http.turns.turns import Turns
from api.images.fetcher import ImageFetcher
from api.metrics.metrics import Metrics
from api.pool_state.body import pool_body
from api.pool_state.feed import PoolFeed
from api.pool_state.plots import PlotReader
from api.pool_state.state import PoolReader
from api.pools.model_cache import ModelCache
from api.pools.model_names import ModelNames
from api.pools.pool import Pool
from api.pools.pool_status import CachedRead, PoolReports, pool_snapshot, readiness
from shared.adapter_sources import SourceTemplate
from shared.protocol.ids import ApiId
from shared.settings import ApiSettings
from shared.store.access.key_store import KeyStore
from shared.store.access.ledger import Ledger
from shared.store.adapters.adapter_pauses import AdapterPauses
from shared.store.adapters.adapter_views import AdapterViews
from shared.store.adapters.audit_log import Changes
from shared.store.adapters.candidates import Candidates
from shared.store.adapters.fetch_progress import StagingProgress
from shared.store.adapters.inspections import Inspections
from shared.store.adapters.pins import Pins
from shared.store.adapters.registry import Registry
from shared.store.adapters.shadows import Shadows
from shared.store.adapters.source_lookups import SourceLookups
from shared.store.adapters.uploads import Uploads
from shared.store.batches.batches import Batches
from shared.store.batches.files import StoredFiles
from shared.store.jobs.dead_letters import DeadLetters
from shared.store.jobs.pauses import Pauses
from shared.store.jobs.queue import Queue
from shared.store.jobs.token_streams import ReplyReader, read_checkpoints
from shared.store.jobs.tokenizations import Tokenizations
from shared.store.jobs.worker_modes import WorkerModes
from shared.store.processes import Processes, new_process_id
from shared.store.redis.connection import Redis
from shared.store.redis.durability import Durability
from shared.store.redis.keys import Keys
from shared.store.views.job_lists import JobLists
from shared.store.views.open_jobs import OpenJobs
from shared.store.views.pool_views import PoolViews
from shared.store.views.starts import WorkerStarts

if TYPE_CHECKING:
    from shared.tracing.tracer import Tracer

MAX_INSPECTIONS = 16
"""Maximum number of concurrent inspections of adapters. Further inspections wait."""
MAX_INSPECTIONS_OF_TENANT = 8
"""Maximum number of concurrent inspections for one tenant."""
MAX_TURNS = 32
"""Maximum number of requests that are accepted at the same time. It is smaller than the number of
Redis connections, so that calls for running answers don't wait for a connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessParts:
    """Parts that all pools of a front end share."""

    metrics: Metrics
    tracer: "Tracer | None"
    """Records requests as spans. None if tracing is off."""
    store: FileStore | None
    """Contents of files. None if the operator hasn't set --file-store."""
    ledger: Ledger
    """Records the usage of tenants."""
    images: ImageFetcher
    is_internal: bool
    """Whether the app is part of another process, which reports its own incidents."""
    turns: Turns = field(default_factory=partial(Turns, MAX_TURNS))
    upload_slots: FairSlots = field(
        default_factory=partial(FairSlots, MAX_UPLOADS, max_per_tenant=MAX_UPLOADS_TENANT)
    )
    """Limits the number of files that are received at the same time."""
    inspection_slots: FairSlots = field(
        default_factory=partial(
            FairSlots, MAX_INSPECTIONS, max_per_tenant=MAX_INSPECTIONS_OF_TENANT
        )
    )
    call_slots: FairSlots = field(
        default_factory=partial(FairSlots, MAX_CALLS, max_per_tenant=MAX_CALLS_OF_TENANT)
    )
    """Limits the number of concurrent calls for tokenization."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLoops:
    """Background work of one pool."""

    replies: ReplyHub
    cancels: CancelQueue
    presence: Presence
    feed: PoolFeed
    on_demand: OnDemand
    shadow_copies: ShadowCopies

    def runs(self) -> Iterator[Coroutine[Any, Any, None]]:
        """Yield the loops that run until the app stops."""
        return (each.run() for each in (self.replies, self.cancels, self.presence, self.feed))

    async def finish(self) -> None:
        """End the streams of the pool's state, and send the waiting cancellations."""
        self.feed.stop()
        await self.cancels.finish()
        await self.presence.finish()

    async def close(self) -> None:
        """Cancel the tasks that requests have started."""
        await self.on_demand.close()
        await self.shadow_copies.close()


def assembled_pool(
    settings: ApiSettings, redis: Redis, durability: Durability | None, process: ProcessParts
) -> Pool:
    """Return a pool with all its parts. `settings` are the front end's settings for this pool.

    A request is accepted only once Redis stores its job as safely as `durability` demands.
    """
    keys, limits = Keys(settings.pool), settings.queue_limits
    queue, stored_keys = Queue(redis, keys, durability=durability), KeyStore(redis, keys)
    registry, views = Registry(redis, keys), PoolViews(redis, keys)
    models, shadows = ModelCache(registry), Shadows(redis, keys)
    shadow_copies = ShadowCopies(queue, limits, shadows)
    inspector = Inspector(
        *(Inspections(redis, keys), views, process.inspection_slots), limit_s=settings.deadline_s
    )
    new_versions = NewVersions(registry, keep_versions=settings.keep_versions)
    on_demand = OnDemand(
        SourceTemplate.of(settings.adapter_source),
        *(SourceLookups(redis, keys), registry, inspector, new_versions),
        limit_s=settings.deadline_s,
    )
    api_id = ApiId(new_process_id())
    replies = ReplyHub(ReplyReader(redis, keys, api_id))
    grace_ms = int(settings.disconnect_grace_s * 1000)
    cancels = CancelQueue(queue, replies, api_id, grace_ms=grace_ms)
    reports = _reports(settings, redis, registry, views)
    intake = Intake(
        settings=settings,
        api_id=api_id,
        limits=limits,
        queue=queue,
        registry=registry,
        models=models,
        turns=process.turns,
        on_demand=on_demand,
        shadow_copies=shadow_copies,
        tracer=process.tracer,
    )
    following = Following(
        api_id=api_id,
        queue=queue,
        views=views,
        read_checkpoints=partial(read_checkpoints, redis, keys),
        cancels=cancels,
        metrics=process.metrics,
    )
    loops = PoolLoops(
        replies=replies,
        cancels=cancels,
        presence=Presence(
            *(queue, replies, cancels, Processes(redis, keys), api_id),
            is_internal=process.is_internal,
        ),
        feed=reports.feed,
        on_demand=on_demand,
        shadow_copies=shadow_copies,
    )
    adapter_pauses = AdapterPauses(redis, keys, durability=durability)
    parts = (
        *(settings, registry, views, models, intake, following, loops, reports, queue, replies),
        *(process.metrics, process.ledger, stored_keys, StoredKeys(stored_keys)),
        *(DeadLetters(redis, keys), Changes(redis, keys), process.images),
        *(OpenJobs(redis, keys), Pauses(redis, keys, durability=durability)),
        *(JobLists(redis, keys, views), WorkerModes(redis, keys, durability=durability)),
        adapter_pauses,
        *(inspector, new_versions, shadows, Candidates(redis, keys), Pins(redis, keys)),
        ShownAdapters(registry, AdapterViews(redis, keys), views, adapter_pauses),
        *(StagingProgress(redis, keys), WorkerStarts(redis, keys), ModelNames(registry)),
        AdapterUploads(
            Uploads(redis, keys), max_mb=settings.max_adapter_mb, deadline_s=settings.deadline_s
        ),
        TokenizerCalls(
            Tokenizations(redis, keys),
            views,
            process.call_slots,
            limit_s=settings.deadline_s,
        ),
        *_file_parts(settings, redis, process),
    )
    return Pool(settings.pool, settings.root_path, parts)


def _reports(
    settings: ApiSettings, redis: Redis, registry: Registry, views: PoolViews
) -> PoolReports:
    keys = Keys(settings.pool)
    state = CachedRead(PoolReader(redis, keys, registry, views).read)
    body_of = partial(pool_body, pool=settings.pool, version=version("lorikeet-serve"))
    return PoolReports(
        readiness=CachedRead(partial(readiness, registry, views, Pauses(redis, keys))),
        snapshot=CachedRead(partial(pool_snapshot, registry, views)),
        state=state,
        body_of=body_of,
        feed=PoolFeed(state.renew, body_of),
        history=PlotReader(redis, keys),
    )


def _file_parts(
    settings: ApiSettings, redis: Redis, process: ProcessParts
) -> tuple[TenantFiles, FileUploads, TenantBatches]:
    keys = Keys(settings.pool)
    files = TenantFiles(StoredFiles(redis, keys), process.store)
    uploads = FileUploads(files, process.upload_slots, settings)
    return files, uploads, TenantBatches(Batches(redis, keys), files, settings)
