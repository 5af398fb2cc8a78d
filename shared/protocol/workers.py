"""What workers tell of themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """What a worker tells of itself with each beat, for operators and metrics."""

    model: str
    device: str
    dtype: str
    version: str
    """Lorikeet's version."""
    max_num_seqs: int
    num_running: int = 0
    num_waiting: int = 0
    kv_tokens: int = 0
    """Tokens that its KV cache holds; 0: an older worker, which doesn't tell."""
    kv_blocks: int = 0
    kv_blocks_free: int = 0
    weight_bytes: int = 0
    """The base model's, on the device."""
    kv_bytes: int = 0
    """The KV cache, on the device."""
    adapter_bytes: int = 0
    """Adapter weights on the device."""
    adapter_bytes_max: int = 0
    """Most of them."""
    host_adapter_bytes: int = 0
    """Copies of adapters in the host's memory."""
    host_adapter_bytes_max: int = 0
    """Most of them."""
    tokens_total: int = 0
    """Output tokens since the worker's start."""
    step_ms: int = 0
    """For how long the engine has been at what it does now; 0 while it has nothing to do."""
    stall_ms: int = 0
    """The worker ends when a step takes this long; 0: an older worker, which doesn't."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """Further totals since the start, by name (preemptions, steps, ...)."""

    @property
    def is_stalled(self) -> bool:
        """Whether the present step has taken more than half of `stall_ms`."""
        return 0 < self.stall_ms < 2 * self.step_ms
