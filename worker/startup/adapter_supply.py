"""Creates the source of a worker's adapters from its settings and its base model."""

from dataclasses import dataclass
from typing import Any

import torch

from shared.cache_folder import cache_folder
from shared.protocol.capabilities import EVERYTHING, Capabilities
from shared.settings import WorkerSettings
from worker.adapters.host_memory import AnyHostMemory
from worker.adapters.memory_budgets import AdapterBudgets
from worker.adapters.source.allowed_sources import AdapterRoots
from worker.adapters.source.checkpoint_reader import CheckpointReader
from worker.adapters.source.disk_store import AdapterStore
from worker.adapters.source.reader import AdapterReader
from worker.lora.base.modules import BaseModules
from worker.served_model import AdapterSupply

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptedBase:
    """What the readers of adapters need to know about the base model."""

    name: str
    modules: BaseModules
    """Modules that adapters may target."""
    tokenizer: Any
    vocab_size: int
    dtype: torch.dtype


def adapter_supply(
    settings: WorkerSettings,
    base: AdaptedBase,
    host: AnyHostMemory,
    budgets: AdapterBudgets,
    *,
    serves: Capabilities = EVERYTHING,
) -> AdapterSupply:
    """Return the source of adapters of the base model, with its memory.

    Adapters that aren't in `serves` are refused.
    """
    folder = settings.adapter_store or cache_folder() / "adapters"
    # Each pool has a folder of its own, since trimming deletes copies that the pool doesn't know.
    store = AdapterStore(folder / settings.pool, max_bytes=settings.adapter_store_mb * MIB)
    roots = AdapterRoots(settings.adapter_roots, settings.adapter_sources.values())
    checkpoints = CheckpointReader(
        base.modules,
        base.tokenizer,
        base_names=[settings.model, base.name, *filter(None, [settings.served_name])],
        dtype=base.dtype,
        vocab_size=base.vocab_size,
        tool_setting=settings.tool_call_parser,
        reasoning_setting=settings.reasoning_parser,
        serves=serves,
    )
    reader = AdapterReader(
        checkpoints.read,
        base=base.modules,
        store=store,
        roots=roots,
        dtype=base.dtype,
        max_bytes=budgets.device,
    )
    return AdapterSupply(source=reader, roots=str(roots), store=store, host=host, budgets=budgets)
