"""Builds the response bodies that describe registered adapters."""

from collections.abc import Sequence, Set
from dataclasses import asdict
from typing import Any

from api.access.model_rights import ModelNotFound
from api.pools.registered_base import registered_base
from api.schema.adapters import (
    AdapterBody,
    AdapterList,
    CandidateBody,
    Holder,
    StagingBody,
    VersionBody,
)
from shared.protocol.access.rights import Access
from shared.protocol.adapters import BaseModel
from shared.store.adapters.adapter_pauses import AdapterPauses
from shared.store.adapters.adapter_views import AdapterView, AdapterViews, VersionView
from shared.store.adapters.fetch_progress import Staging
from shared.store.adapters.registry import Registry
from shared.store.views.pool_views import PoolViews, WorkerView


class ShownAdapters:
    """Builds response bodies about the adapters of one pool."""

    def __init__(
        self,
        registry: Registry,
        adapter_views: AdapterViews,
        views: PoolViews,
        pauses: AdapterPauses,
    ) -> None:
        self._registry = registry
        self._pauses = pauses
        self._adapter_views = adapter_views
        self._views = views

    async def view(self, name: str) -> AdapterView:
        """Return the registry's view of an adapter: its versions and their usage.

        Raises:
            JobFailed: the name isn't registered. Perhaps another client has just unloaded it.
            RedisUnavailable: the registry can't be read.
        """
        view = await self._adapter_views.adapter(name)
        if view is None:
            raise ModelNotFound(name)
        return view

    async def one(self, name: str, base: BaseModel) -> AdapterBody:
        """Return the response body for an adapter of the base model `base`.

        Raises:
            JobFailed: as in `view`.
            RedisUnavailable: the registry can't be read.
        """
        view, paused = await self.view(name), await self._pauses.names()
        return adapter_body(view, base, await self._views.workers(), paused)

    async def all(self, access: Access) -> AdapterList:
        """Return the adapters that a client may use, and retired versions that still have requests.

        Raises:
            JobFailed: no worker has registered a base model.
            RedisUnavailable: the registry can't be read.
        """
        base = await registered_base(self._registry)
        views = await self._adapter_views.adapters()
        retired = await self._adapter_views.retired()
        workers, paused = await self._views.workers(), await self._pauses.names()
        return AdapterList(
            data=[
                adapter_body(view, base, workers, paused)
                for view in views
                if access.allows(view.current.adapter.name)
            ],
            draining=[
                version_body(view, workers) for view in retired if access.allows(view.adapter.name)
            ],
        )


def adapter_body(
    view: AdapterView, base: BaseModel, workers: Sequence[WorkerView], paused: Set[str]
) -> AdapterBody:
    """Return the response body for an adapter. `paused` has the names of all paused adapters."""
    name = view.current.adapter.name
    return AdapterBody(
        id=name,
        is_paused=name in paused,
        parent=base.name,
        previous=[version_body(version, workers) for version in view.previous],
        candidate=candidate_body(view, workers),
        min_replicas=view.replicas,
        **_fields(view.current, workers),
    )


def version_body(view: VersionView, workers: Sequence[WorkerView]) -> VersionBody:
    """Return the response body for one version of an adapter."""
    return VersionBody(**_fields(view, workers))


def candidate_body(view: AdapterView, workers: Sequence[WorkerView]) -> CandidateBody | None:
    """Return the response body for the candidate of an adapter, if it has one."""
    if view.candidate is None or view.share is None:
        return None
    return CandidateBody(
        mode=view.share.mode,
        percent=view.share.percent,
        since_ms=view.share.since_ms,
        **_fields(view.candidate, workers),
    )


def staging_body(staging: Staging | None) -> StagingBody | None:
    """Return the progress of an adapter that a worker is fetching; None if `staging` is None."""
    if staging is None:
        return None
    return StagingBody(
        source=staging.source,
        phase=staging.phase.value,
        bytes=staging.num_bytes,
        total_bytes=staging.total,
    )


def _fields(view: VersionView, workers: Sequence[WorkerView]) -> dict[str, Any]:
    adapter = view.adapter
    return {
        "version": adapter.version,
        "state": adapter.state,
        "source": adapter.source,
        "kinds": sorted(adapter.kinds),
        "other_base": adapter.other_base or None,
        "rank": adapter.rank,
        "bytes": adapter.num_bytes,
        "created": adapter.created_s,
        **asdict(view.usage),
        "last_used_ms": view.used_ms,
        "waiting": view.waiting,
        "workers": _holders(view, workers),
    }


def _holders(view: VersionView, workers: Sequence[WorkerView]) -> list[Holder]:
    version = view.adapter.version
    holders = [Holder(worker=w.id, tier="device") for w in workers if version in w.residents]
    if view.loader and view.loader not in {holder.worker for holder in holders}:
        holders.append(Holder(worker=view.loader, tier="loading"))
    return holders
