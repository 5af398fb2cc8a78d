"""Describes a worker for its heartbeats and for its first log line."""

from importlib.metadata import version

from shared.protocol.workers import WorkerInfo
from shared.settings import WorkerSettings
from worker.engine.interface import EngineStats
from worker.served_model import ServedModel

MIB = 1 << 20


def worker_info(
    settings: WorkerSettings,
    served: ServedModel,
    stats: EngineStats,
    counters: dict[str, int],
    *,
    step_s: float,
) -> WorkerInfo:
    """Return the worker's state as shown to operators.

    Args:
        settings: the worker's settings.
        served: the model that the worker serves.
        stats: the engine's state after its last step.
        counters: totals since the worker's start, except those that the engine counts.
        step_s: seconds that the engine has spent on its current step.
    """
    info, supply = served.info, served.adapters
    device_bytes, host_bytes = supply.budgets.used(stats.adapter_bytes, supply.host.num_bytes)
    return WorkerInfo(
        model=served.base.name,
        device=info.device,
        dtype=info.dtype,
        version=version("lorikeet-serve"),
        max_num_seqs=settings.max_num_seqs,
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
        counters={
            "steps": stats.num_steps,
            "preemptions": stats.num_preemptions,
            "cached_tokens": stats.num_cached_tokens,
            **counters,
        },
    )


def startup_fields(settings: WorkerSettings, served: ServedModel) -> dict[str, str | int]:
    """Return the worker's device, settings and limits as fields of its first log line."""
    info = served.info
    return {
        "device": info.device,
        "dtype": info.dtype,
        "kernels": info.kernels,
        "fused": info.num_fused,
        "threads": served.cpu.num_threads,
        "adapter_roots": served.adapters.roots,
        "max_model_len": served.base.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "max_num_batched_tokens": settings.max_num_batched_tokens,
        "kv_tokens": info.kv_tokens,
        "kv_cache_mb": settings.kv_cache_mb,
        "adapter_memory_mb": settings.adapter_memory_mb,
        "adapter_host_mb": settings.adapter_host_mb,
        "weights_mb": info.weight_bytes // MIB,
    }
