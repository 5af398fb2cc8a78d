"""Builds the response bodies of /v1/adapters from views of adapters and workers."""

from collections.abc import Sequence
from typing import Any

from api.schema.adapters import AdapterBody, CandidateBody, Holder, StagingBody, VersionBody
from shared.protocol.adapters import BaseModel
from shared.store.adapters.adapter_views import AdapterView, VersionView
from shared.store.adapters.staging import Staging
from shared.store.views.pool_views import WorkerView


def adapter_body(view: AdapterView, base: BaseModel, workers: Sequence[WorkerView]) -> AdapterBody:
    """Return the response body for an adapter, including its previous versions."""
    return AdapterBody(
        id=view.current.adapter.name,
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
    """Return the progress of an adapter that a worker fetches, if one does."""
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
        "rank": adapter.rank,
        "bytes": adapter.num_bytes,
        "created": adapter.created_s,
        "requests": view.requests,
        "tokens": view.tokens,
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
