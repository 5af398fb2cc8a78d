"""Creates the source of a worker's adapters from its settings and its base model."""

from typing import Any

import torch

from shared.protocol.capabilities import EVERYTHING, Capabilities
from shared.settings import WorkerSettings
from worker.adapters.host_memory import HostMemory
from worker.adapters.memory_budgets import AdapterBudgets
from worker.adapters.source.allowed_sources import adapter_roots
from worker.adapters.source.checkpoint_reader import CheckpointReader
from worker.adapters.source.reader import AdapterReader
from worker.lora.base.modules import BaseModules
from worker.served_model import AdapterSupply
from worker.startup.adapter_copies import adapter_store, remote_sources


def adapter_supply(
    settings: WorkerSettings,
    base: BaseModules,
    tokenizer: Any,
    host: HostMemory,
    budgets: AdapterBudgets,
    *,
    name: str,
    vocab_size: int,
    dtype: torch.dtype,
    serves: Capabilities = EVERYTHING,
) -> AdapterSupply:
    """Return the source of adapters for the base model `name`.

    The source refuses adapters that need a capability that isn't in `serves`.
    """
    store = adapter_store(settings)
    roots = adapter_roots(settings)
    checkpoints = CheckpointReader(
        base,
        tokenizer,
        base_names=[settings.model, name, *filter(None, [settings.served_name])],
        dtype=dtype,
        vocab_size=vocab_size,
        tool_settings=settings.tool_settings,
        reasoning_setting=settings.reasoning_parser,
        serves=serves,
    )
    stager = remote_sources(settings, store, roots.urls)
    reader = AdapterReader(
        checkpoints.read,
        base=base,
        store=store,
        roots=roots,
        stager=stager,
        dtype=dtype,
        max_bytes=budgets.device,
    )
    return AdapterSupply(
        source=reader, roots=str(roots), store=store, stager=stager, host=host, budgets=budgets
    )
