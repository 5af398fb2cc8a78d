"""What a worker says of itself: to the pool with each beat, and in its first log line."""

from importlib.metadata import version
from typing import TYPE_CHECKING

from shared.protocol.workers import WorkerInfo
from shared.settings import WorkerSettings
from worker.served_model import ServedModel

if TYPE_CHECKING:  # it imports torch
    from worker.engine.engine import EngineStats

MIB = 1 << 20


def worker_info(
    settings: WorkerSettings,
    served: ServedModel,
    stats: "EngineStats",
    counters: dict[str, int],
    *,
    step_s: float,
) -> WorkerInfo:
    """The worker as operators see it; `counters` are totals beside the engine's.

    `step_s` is for how long the engine has been at its present step.
    """
    device_bytes, host_bytes = served.adapter_budgets.used(
        stats.adapter_bytes, served.host.num_bytes
    )
    return WorkerInfo(
        model=served.base.name,
        device=served.device,
        dtype=served.dtype,
        version=version("lorikeet"),
        max_num_seqs=settings.max_num_seqs,
        kv_tokens=served.kv_tokens,
        num_running=stats.num_running,
        num_waiting=stats.num_waiting,
        kv_blocks=stats.kv_blocks,
        kv_blocks_free=stats.kv_blocks_free,
        weight_bytes=served.weight_bytes,
        kv_bytes=served.kv_bytes,
        adapter_bytes=device_bytes,
        adapter_bytes_max=served.adapter_budgets.device,
        host_adapter_bytes=host_bytes,
        host_adapter_bytes_max=served.adapter_budgets.host,
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


def budgets(settings: WorkerSettings, served: ServedModel) -> dict[str, str | int]:
    """What limits the worker, for its log."""
    return {
        "device": served.device,
        "dtype": served.dtype,
        "kernels": served.kernels,
        "fused": served.num_fused,
        "threads": served.num_threads,
        "adapter_roots": served.adapter_roots,
        "max_model_len": served.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "max_num_batched_tokens": settings.max_num_batched_tokens,
        "kv_tokens": served.kv_tokens,
        "kv_cache_mb": settings.kv_cache_mb,
        "adapter_memory_mb": settings.adapter_memory_mb,
        "adapter_host_mb": settings.adapter_host_mb,
        "weights_mb": served.weight_bytes // MIB,
    }
