"""Determines a worker's sizes from its settings and device, and checks the context length."""

from typing import Protocol

import structlog

from shared.errors import SettingsError
from shared.settings import WorkerSettings
from worker.model.cache_shape import CacheShape, CacheSize
from worker.model.memory import Asked, Device, Sizes, size_worker
from worker.model.memory_policy import MIB, MIN_CONTEXT, Parts

log = structlog.get_logger()


class SizedModel(Protocol):
    """Properties of a model that determine a worker's sizes. The model needn't be loaded."""

    @property
    def cache(self) -> CacheShape:
        """What is kept of each sequence between steps."""

    @property
    def max_model_len(self) -> int:
        """Longest context that the model supports, in tokens."""


def sizes_of(settings: WorkerSettings, model: SizedModel, device: Device) -> Sizes:
    """Return the sizes of a worker. Log a warning if the model's full context doesn't fit.

    Raises:
        SettingsError: the device has too little memory for a step or for a useful context.
    """
    full_context = model.cache.bytes_of(model.max_model_len)
    sizes = size_worker(device, _asked(settings), full_context=full_context)
    if settings.max_model_len is None:  # otherwise the engine checks that the cache holds it
        size = cache_size(model, sizes)
        _check_context(settings, device, model.max_model_len, size.num_tokens, full_context)
    return sizes


def cache_size(model: SizedModel, sizes: Sizes) -> CacheSize:
    """Return the sizes of the cache of a worker with these sizes.

    Raises:
        SettingsError: see `CacheShape.divide`.
    """
    return model.cache.divide(
        sizes.parts.kv,
        max_num_seqs=sizes.batch.max_num_seqs,
        max_model_len=model.max_model_len,
    )


def _asked(settings: WorkerSettings) -> Asked:
    is_given = "adapter_host_mb" in settings.model_fields_set
    return Asked(
        parts=Parts(
            kv=_bytes(settings.kv_cache_mb),
            adapters=_bytes(settings.adapter_memory_mb),
            # The default isn't explicit, so a small machine lowers it.
            copies=_bytes(settings.adapter_host_mb if is_given else None),
        ),
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        memory_fraction=settings.memory_fraction,
    )


def _bytes(mib: int | None) -> int | None:
    return None if mib is None else mib * MIB


def _check_context(
    settings: WorkerSettings, device: Device, limit: int, num_tokens: int, full_context: int
) -> None:
    """Check that a KV cache of `num_tokens` tokens holds a context of useful length.

    `limit` is the model's maximum context length in tokens.
    """
    if num_tokens >= limit:
        return
    needed_mb = -(-full_context // MIB)
    if num_tokens >= min(MIN_CONTEXT, limit):
        log.warning(
            "context_limited",
            max_model_len=num_tokens,
            of_model=limit,
            full_context_needs=f"--kv-cache-mb {needed_mb}",
        )
    elif settings.kv_cache_mb is not None:
        raise SettingsError(
            f"--kv-cache-mb {settings.kv_cache_mb} holds only {num_tokens} tokens: raise it; the "
            f"model's full context of {limit} tokens needs {needed_mb}"
        )
    else:
        raise SettingsError(
            f"{device.name} has memory for only {num_tokens} tokens of KV cache: lower "
            "--adapter-memory-mb, --adapter-host-mb, --max-num-seqs or --max-num-batched-tokens, "
            "start fewer workers, raise --memory-fraction, or serve a smaller model; the model's "
            f"full context of {limit} tokens needs --kv-cache-mb {needed_mb}"
        )
