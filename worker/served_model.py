"""The base model that a worker serves, with its engine, tokenizer and source of adapters."""

from collections.abc import Callable
from dataclasses import dataclass

from shared.protocol.adapters import BaseModel
from shared.protocol.capabilities import EVERYTHING, Capabilities
from worker.adapters.disk_store import AdapterStore
from worker.adapters.host_memory import HostMemory
from worker.adapters.memory_budgets import AdapterBudgets
from worker.adapters.remote.stager import Stager
from worker.adapters.source.interface import AdapterSource
from worker.engine.interface import AnyEngine
from worker.text.interface import Grammars, PromptTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseInfo:
    """Properties of a loaded base model and its engine."""

    eos_ids: frozenset[int]
    """Token ids that end an answer."""
    device: str
    dtype: str
    kernels: str
    """Name of the kernels that compute the model."""
    num_fused: int
    """Number of the model's modules that were replaced by native operations."""
    kv_tokens: int
    """Number of tokens that fit into the KV cache."""
    kv_bytes: int
    """Size of the KV cache in bytes."""
    weight_bytes: int
    """Size of the base model's weights in bytes."""
    max_num_seqs: int
    """Maximum number of sequences in a batch."""
    max_num_batched_tokens: int
    """Maximum number of tokens of a step."""
    step_bytes: int = 0
    """Memory that the largest step takes in addition to the weights, in bytes; 0 if unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSupply:
    """The source of a worker's adapters, and the memory for them."""

    source: AdapterSource
    roots: str
    """Folders and hub organisations that clients may load adapters from, as text for the log."""
    store: AdapterStore | None
    """Store of the copies of adapters' files on disk; None if no copies are kept."""
    stager: Stager | None
    """Fetches adapters from URLs; None if the worker fetches none."""
    host: HostMemory
    """Copies of adapters in host memory."""
    budgets: AdapterBudgets


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuShares:
    """Functions by which a worker's threads share its CPU cores. The defaults do nothing."""

    num_threads: int = 1
    """Number of OpenMP threads of the engine."""
    take_cores: Callable[[], None] = lambda: None
    """Function that gives the calling thread `num_threads` OpenMP threads.

    Only the engine's thread calls it."""
    spare_cores: Callable[[], None] = lambda: None
    """Function that limits the calling thread to one core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A base model, ready to take requests and adapters."""

    engine: AnyEngine
    tokenizer: PromptTokenizer
    grammars: Grammars
    base: BaseModel
    info: BaseInfo
    adapters: AdapterSupply
    cpu: CpuShares
    serves: Capabilities = EVERYTHING
    """Kinds of adapters and features of jobs that the engine supports."""
    close: Callable[[], None] = lambda: None
    """Function that ends the processes that the model has started.

    The worker calls it once, after the last job."""
