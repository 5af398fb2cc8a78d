"""Description that each worker publishes for operators, metrics and the Lua scripts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from shared.protocol.capabilities import EVERYTHING, Capabilities
from shared.protocol.ids import AdapterVersion

FIRST_TOKEN_BOUNDS_S = tuple(0.005 * 1.5**power for power in range(24))
"""Upper bounds of the buckets for times to the first token: 5 ms to 56 s.

One more bucket has all longer times. The bounds must not change, because workers of two releases
may add to the same totals. `reap.lua` has the number of buckets.
"""


class WorkerMode(StrEnum):
    """Whether a worker takes jobs. Operators set it, and `set_mode.lua` stores it."""

    SERVING = ""
    PAUSED = "paused"
    """The worker takes no jobs, and finishes those that it has."""
    DRAINING = "draining"
    """Like PAUSED, but the worker hands over the jobs that haven't ended within its `drain_s`."""

    @property
    def shown(self) -> Literal["serving", "paused", "draining"]:
        """Name of the mode in the API."""
        match self:
            case WorkerMode.SERVING:
                return "serving"
            case WorkerMode.PAUSED:
                return "paused"
            case WorkerMode.DRAINING:
                return "draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """Description that a worker publishes with each heartbeat. `common.lua` reads some fields."""

    model: str
    device: str
    dtype: str
    version: str
    """Version of Lorikeet that the worker runs."""
    max_num_seqs: int
    kv_tokens: int
    """Capacity of the KV cache in tokens."""
    num_running: int = 0
    num_waiting: int = 0
    kv_blocks: int = 0
    kv_blocks_free: int = 0
    weight_bytes: int = 0
    """Bytes of the base model's weights on the device."""
    kv_bytes: int = 0
    """Bytes of the KV cache on the device."""
    adapter_bytes: int = 0
    """Bytes of adapter weights on the device."""
    adapter_bytes_max: int = 0
    host_adapter_bytes: int = 0
    host_adapter_bytes_max: int = 0
    tokens_total: int = 0
    """Number of output tokens since the worker started."""
    step_ms: int = 0
    """Milliseconds since the engine started its current step; 0 while the engine is idle."""
    stall_ms: int = 0
    """Milliseconds that a step may take before the worker exits."""
    serves: Capabilities = EVERYTHING
    """Capabilities of the worker."""
    first_tokens: tuple[int, ...] = ()
    """Number of jobs since the worker started, by bucket of the time from acceptance to first
    token."""
    running_by_version: Mapping[AdapterVersion, int] = field(default_factory=dict)
    """Number of jobs that the worker owns, by version."""
    host_adapters: tuple[AdapterVersion, ...] = ()
    """Versions that are only in host memory, sorted; only the first ones if there are very many."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """Further totals since the worker started, by name. Examples are `steps` and `preemptions`."""

    @property
    def is_stalled(self) -> bool:
        """Whether the current step has taken more than half of `stall_ms`.

        With this margin, health checks can report a stalled worker before it exits. `common.lua`
        has the same rule.
        """
        return self.stall_ms < 2 * self.step_ms
