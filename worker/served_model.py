"""What a worker serves: its base model in an engine, and everything that goes with it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.protocol.adapters import BaseModel
from worker.adapters.memory_budgets import AdapterBudgets
from worker.adapters.source.checked_adapter import AdapterSource
from worker.adapters.source.disk_store import AdapterStore
from worker.text.grammar_cache import GrammarCache
from worker.text.tokenizer import Tokenizer

if TYPE_CHECKING:  # they import torch
    from worker.engine.engine import Engine
    from worker.lora.memory.host_tier import HostTier


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseInfo:
    """Facts about a loaded base model."""

    eos_ids: frozenset[int]
    """Token ids that end an answer."""
    device: str
    dtype: str
    kernels: str
    """Name of the kernels that compute it."""
    num_fused: int
    """Modules that native operations replace."""
    kv_tokens: int
    """Tokens that the KV cache holds."""
    kv_bytes: int
    """Bytes of the KV cache."""
    weight_bytes: int
    """Bytes of the base model's weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSupply:
    """Where a worker's adapters come from, and the memory for them."""

    source: AdapterSource
    roots: str
    """Where adapters may be loaded from at run time, for the log."""
    store: AdapterStore | None
    """Copies of adapters' files on disk, if any are kept."""
    host: "HostTier"
    """Copies of adapters in host memory."""
    budgets: AdapterBudgets


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuShares:
    """How the threads of a worker share its CPU cores."""

    num_threads: int
    """OpenMP threads of the engine."""
    take_cores: Callable[[], None]
    """Gives the calling thread all of `num_threads`; the engine's thread calls it."""
    spare_cores: Callable[[], None]
    """Gives the calling thread one core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A base model, ready to take requests and adapters."""

    engine: "Engine"
    tokenizer: Tokenizer
    grammars: GrammarCache
    base: BaseModel
    info: BaseInfo
    adapters: AdapterSupply
    cpu: CpuShares
