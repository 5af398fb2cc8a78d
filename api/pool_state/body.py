"""Builds the body of GET /v1/pool."""

from collections.abc import Mapping, Sequence
from typing import Any

from api.pool_state.incident_text import incident_body
from api.pool_state.load import load_of, slots_needed
from api.pool_state.rates import rounded
from api.pool_state.state import PoolState
from shared.protocol.capabilities import Capabilities
from shared.protocol.ids import AdapterVersion, WorkerId
from shared.store.adapters.candidates import Share
from shared.store.jobs.pauses import Pause
from shared.store.views.activity import Activity, VersionActivity
from shared.store.views.pool_views import QueueCounts, WorkerView


def pool_body(state: PoolState, *, pool: str, version: str) -> dict[str, Any]:
    """Return the state of the pool as JSON values, without `history`. `version` is Lorikeet's."""
    alive = [worker for worker in state.workers if worker.lease_left_ms > 0]
    has_base, has_worker = state.base is not None, bool(alive)
    loads = _loads(state.activity)
    return {
        "object": "pool",
        "pool": pool,
        "base": state.base.name if state.base else None,
        "version": version,
        "time": round(state.time_s, 3),
        "accepts_jobs": has_base,
        "has_worker": has_worker,
        "reason": reason(
            has_base=has_base, has_worker=has_worker, is_paused=state.pause is not None
        ),
        "pause": _pause(state.pause),
        "workers": [_worker(worker, loads.get(worker.id, ())) for worker in state.workers],
        "adapters": [_adapter(version) for version in state.activity.versions],
        "num_adapters": state.activity.num_adapters,
        "queue": _queue(state.counts),
        "slots": {
            "total": sum(worker.info.max_num_seqs for worker in alive),
            "used": sum(worker.info.num_running for worker in alive),
            "per_worker": state.counts.slots_per_worker,
            "needed": slots_needed(state.counts),
            "load": round(load_of(state.counts, state.base), 4),
        },
        "rates": {
            "tokens_per_s": round(state.rates.tokens_per_s, 2),
            "requests_per_s": round(state.rates.requests_per_s, 3),
            "ttft_p50_s": rounded(state.rates.ttft_p50_s),
            "ttft_p95_s": rounded(state.rates.ttft_p95_s),
        },
        "num_strays": state.num_strays,
        "incidents": [incident_body(incident) for incident in state.incidents],
    }


def reason(*, has_base: bool, has_worker: bool, is_paused: bool) -> str | None:
    """Return the reason why requests aren't answered at present, or None if they are answered."""
    if not has_base:
        return "no base model is registered"
    if not has_worker:
        return "no worker is alive"
    return "the pool is paused" if is_paused else None


def _pause(pause: Pause | None) -> dict[str, Any] | None:
    return None if pause is None else {"by": pause.by, "since": pause.since_ms / 1000}


def _loads(activity: Activity) -> Mapping[WorkerId, list[AdapterVersion]]:
    """Return the versions that each worker is loading."""
    loads: dict[WorkerId, list[AdapterVersion]] = {}
    for each in activity.versions:
        if each.loader is not None:
            loads.setdefault(each.loader, []).append(each.version)
    return loads


def _worker(worker: WorkerView, loads: Sequence[AdapterVersion]) -> dict[str, Any]:
    info = worker.info
    return {
        "id": worker.id,
        "name": worker.name,
        "state": worker.mode.shown,
        "device": info.device,
        "dtype": info.dtype,
        "version": info.version,
        "max_num_seqs": info.max_num_seqs,
        "running": worker.running,
        "slots_used": info.num_running,
        "waiting": info.num_waiting,
        "kv_used": round(1 - info.kv_blocks_free / info.kv_blocks, 4) if info.kv_blocks else 0.0,
        "adapter_bytes": info.adapter_bytes,
        "adapter_bytes_max": info.adapter_bytes_max,
        "host_adapter_bytes": info.host_adapter_bytes,
        "host_adapter_bytes_max": info.host_adapter_bytes_max,
        "lease_left_s": worker.lease_left_ms / 1000,
        "is_stalled": info.is_stalled,
        "tokens_total": info.tokens_total,
        "serves": _serves(info.serves),
        "adapters": _held(worker, loads),
    }


def _serves(serves: Capabilities) -> str | None:
    """Return a text that says what a worker serves; None if it serves everything."""
    if serves.is_everything:
        return None
    limit = "" if serves.max_rank is None else f" up to rank {serves.max_rank}"
    return ", ".join([f"plain LoRA{limit}", *sorted(serves.kinds), *sorted(serves.features)])


def _held(worker: WorkerView, loads: Sequence[AdapterVersion]) -> list[dict[str, Any]]:
    """Return one entry for each version that the worker runs, loads or has in memory."""
    running = worker.info.running_by_version
    states: dict[AdapterVersion, str] = dict.fromkeys(worker.info.host_adapters, "host")
    states |= dict.fromkeys((*loads, *running), "loading")  # jobs wait until the load has ended
    states |= dict.fromkeys(worker.residents, "resident")
    return [
        {"version": version, "state": states[version], "running": running.get(version, 0)}
        for version in sorted(states)
    ]


def _adapter(each: VersionActivity) -> dict[str, Any]:
    waited_ms = each.next_waited_ms
    return {
        "name": each.name,
        "version": each.version,
        "is_current": each.is_current,
        "is_base": each.is_base,
        "is_paused": each.is_paused,
        "waiting": each.waiting,
        "running": each.running,
        "oldest_waited_s": None if waited_ms is None else waited_ms / 1000,
        "requests": each.requests,
        "tokens": each.tokens,
        "candidate": _candidate(each.share),
    }


def _candidate(share: Share | None) -> dict[str, Any] | None:
    return None if share is None else {"mode": share.mode.value, "percent": share.percent}


def _queue(counts: QueueCounts) -> dict[str, int]:
    return {
        "waiting": counts.waiting,
        "running": counts.running,
        **{state.value: total for state, total in counts.totals.items()},
        "failed_client": counts.failed_client,
        "retried": counts.retried,
        "released": counts.released,
        "workers_lost": counts.workers_lost,
    }
