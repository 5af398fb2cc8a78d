"""What a worker serves: its base model in an engine, and the tokenizer that goes with it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.protocol.ids import AdapterVersion
from shared.store.inspections import Findings, Inspection
from shared.store.registry import Adapter, BaseModel
from worker.adapters.disk_store import AdapterStore
from worker.adapters.memory_budgets import AdapterBudgets
from worker.text.grammar_cache import Grammars
from worker.text.prompt_style import OF_BASE, Style
from worker.text.tokenizer import Tokenizer

if TYPE_CHECKING:  # they import torch
    from worker.engine.engine import Engine
    from worker.lora.checkpoint.adapter import LoRAAdapter
    from worker.lora.memory.host_tier import HostTier


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A base model, ready to take requests and adapters."""

    engine: "Engine"
    tokenizer: Tokenizer
    base: BaseModel
    max_model_len: int
    kv_tokens: int
    """Tokens that the KV cache holds."""
    eos_ids: frozenset[int]
    device: str
    dtype: str
    kernels: str
    num_fused: int
    """Modules of the base model that native operations replace."""
    adapter_roots: str
    """Where adapters may be loaded from at run time, for the log."""
    num_threads: int
    """CPU threads of the engine."""
    grammars: Grammars
    take_cores: Callable[[], None]
    """Lets the engine's thread compute with that many, as before each step; others have one."""
    spare_cores: Callable[[], None]
    """Leaves the calling thread one."""
    read_adapter: Callable[[str, str], "LoRAAdapter"]
    """Reads and checks the adapter of a name and a source; blocks; raises AdapterRejected."""
    named: Callable[["LoRAAdapter", str], "LoRAAdapter"]
    """An adapter that was read, under another name."""
    read_version: Callable[[Adapter], "LoRAAdapter"]
    """Reads one exact version, from its source or a copy; as `read_adapter` otherwise."""
    inspect: Callable[[Inspection], Findings]
    """Reads an adapter for a front end; blocks; never raises."""
    store: AdapterStore | None
    """Where copies of adapters' files are, if any are kept."""
    host: "HostTier"
    """Adapters that were read and are ready for the engine."""
    adapter_budgets: AdapterBudgets
    """Of the engine's adapters and these."""
    weight_bytes: int
    """Of the base model."""
    kv_bytes: int
    """Of the KV cache."""
    style_of: Callable[[AdapterVersion], Style | None] = lambda _: OF_BASE
    """How a version's prompts are made; None as long as it wasn't read here."""
