"""Describes a worker for its heartbeats and for its first log line.

`api/metrics/pool_metrics.py` reads the counters by name.
"""

from importlib.metadata import version

from shared.protocol.workers import WorkerInfo
from shared.settings import WorkerSettings
from worker.engine.interface import EngineStats
from worker.served_model import ServedModel

MIB = 1 << 20
_SIZED = ("max_num_seqs", "max_num_batched_tokens", "kv_cache_mb", "adapter_memory_mb")
"""Names of the settings whose defaults depend on the device's memory."""


def worker_info(
    settings: WorkerSettings,
    served: ServedModel,
    stats: EngineStats,
    counters: dict[str, int],
    *,
    step_s: float,
) -> WorkerInfo:
    """Return the worker's state as shown to operators.

    `stats` are the engine's counters and gauges after its latest step. `step_s` is the time in
    seconds since the current step began. `counters` are totals since the worker's start, except for
    those that come from the engine.
    """
    info, supply = served.info, served.adapters
    device_bytes, host_bytes = supply.budgets.used(stats.adapter_bytes, supply.host.num_bytes)
    return WorkerInfo(
        model=served.base.name,
        device=info.device,
        dtype=info.dtype,
        version=version("lorikeet-serve"),
        max_num_seqs=info.max_num_seqs,
        kv_tokens=info.kv_tokens,
        num_running=stats.num_running,
        num_waiting=stats.num_waiting,
        kv_blocks=stats.kv_blocks,
        kv_blocks_free=stats.kv_blocks_free,
        weight_bytes=info.weight_bytes,
        kv_bytes=info.kv_bytes,
        adapter_bytes=device_bytes,
        adapter_bytes_max=supply.budgets.device,
        host_adapter_bytes=host_bytes,
        host_adapter_bytes_max=supply.budgets.host,
        tokens_total=stats.num_tokens,
        step_ms=int(step_s * 1000),
        stall_ms=int(settings.stall_s * 1000),
        serves=served.serves,
        counters={
            "steps": stats.num_steps,
            "preemptions": stats.num_preemptions,
            "cached_tokens": stats.num_cached_tokens,
            "out_of_memory": stats.num_out_of_memory,
            "forced_tokens": stats.num_forced_tokens,
            "drafted_tokens": stats.num_drafted_tokens,
            "accepted_tokens": stats.num_accepted_tokens,
            **counters,
        },
    )


def startup_fields(settings: WorkerSettings, served: ServedModel) -> dict[str, str | int]:
    """Return the device and the limits, as fields of the worker's first log line.

    The field `sized` names the limits that the settings don't set, so that the worker chooses them.
    """
    info, budgets = served.info, served.adapters.budgets
    return {
        "device": info.device,
        "dtype": info.dtype,
        "kernels": info.kernels,
        "fused": info.num_fused,
        "threads": served.cpu.num_threads,
        "adapter_roots": served.adapters.roots,
        "max_model_len": served.base.max_model_len,
        "max_num_seqs": info.max_num_seqs,
        "max_num_batched_tokens": info.max_num_batched_tokens,
        "kv_tokens": info.kv_tokens,
        "kv_cache_mb": round(info.kv_bytes / MIB),
        "adapter_memory_mb": budgets.device // MIB,
        "adapter_host_mb": budgets.host // MIB,
        "weights_mb": info.weight_bytes // MIB,
        "step_mb": info.step_bytes // MIB,
        "sized": " ".join(name for name in _SIZED if getattr(settings, name) is None),
    }
