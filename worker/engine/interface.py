"""Interface of engines: `NativeEngine`, `VllmEngine` and `SimulatedEngine`.

The worker's other parts use an engine only through this interface. Importing it needs no torch.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from shared.protocol.ids import AdapterVersion
from worker.engine.request import Request, RequestId, StepOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """Counters and gauges of an engine."""

    num_running: int
    num_waiting: int
    kv_blocks: int
    kv_blocks_free: int
    adapter_bytes: int
    """Adapter memory used by resident and reserved adapters, in bytes."""
    num_steps: int
    num_preemptions: int
    num_cached_tokens: int
    """Number of tokens reused from the prefix cache since the start."""
    num_tokens: int
    """Number of output tokens since the start."""
    num_forced_tokens: int = 0
    """Number of output tokens that no step sampled, because the grammar allowed no other."""
    num_drafted_tokens: int = 0
    """Number of tokens since the start that steps verified as drafts."""
    num_accepted_tokens: int = 0
    """Number of drafted tokens that became output tokens."""
    num_out_of_memory: int = 0
    """Number of forward passes since the start that ran out of memory and were retried."""


class AdapterImage(Protocol):
    """An adapter in the form that an engine copies to adapter memory."""

    @property
    def version(self) -> AdapterVersion:
        """Version of the adapter."""

    @property
    def num_bytes(self) -> int:
        """Adapter memory that the adapter takes, in bytes."""


ImageT_contra = TypeVar("ImageT_contra", bound=AdapterImage, contravariant=True)
"""Type of an engine's images."""
ReservedT = TypeVar("ReservedT")
"""Type of an engine's reservations of adapter memory. Only the engine reads them."""


@dataclass(frozen=True, slots=True)
class EvictionOrder:
    """Adapters that are evicted first, and adapters that are evicted last."""

    first: Collection[AdapterVersion] = ()
    """Versions that are evicted before all others."""
    last: Collection[AdapterVersion] = ()
    """Versions that are evicted after all others, unless they are also in `first`."""


LEAST_RECENTLY_USED = EvictionOrder()
"""Order in which only the time of last use matters."""


@dataclass(frozen=True, slots=True)
class Placing(Generic[ReservedT]):
    """Result of `Engine.place`."""

    reserved: ReservedT | None
    """Memory for the adapter, or None if too little memory was free even after evictions."""
    evicted: list[AdapterVersion]


class Engine(Protocol[ImageT_contra, ReservedT]):
    """Computes requests for a base model and its resident adapters, step by step.

    Not thread-safe: all methods but `write_adapter` must be called from one thread.
    """

    @property
    def num_failures_in_a_row(self) -> int:
        """Number of steps that failed since the last successful one."""

    @property
    def has_work(self) -> bool:
        """Whether a step would compute requests or return outputs."""

    def add(self, request: Request) -> None:
        """Queue a request. If the request cannot run, the next step returns an error for it.

        A request with `output_ids` continues after these tokens.
        """

    def abort(self, request_id: RequestId) -> None:
        """End a request. No output is returned for it. Unknown and finished ids are ignored."""

    def step(self) -> list[StepOutput]:
        """Run one step and return its outputs.

        If the step fails, each of its requests ends with an error, and the engine stays usable.
        """

    def place(
        self,
        image: ImageT_contra,
        *,
        may_evict: bool = True,
        order: EvictionOrder = LEAST_RECENTLY_USED,
    ) -> Placing[ReservedT]:
        """Reserve memory for an adapter. With `may_evict`, evict idle adapters if necessary.

        `order` decides which adapters are evicted first. Among adapters of equal order, the least
        recently used one is first.
        If memory is reserved, the caller must either call `write_adapter` and `activate_adapter`,
        or free the memory with `remove_adapter`.

        Raises:
            AdapterRejected: the adapter is larger than the whole adapter memory.
        """

    def write_adapter(self, reserved: ReservedT, image: ImageT_contra) -> None:
        """Copy an adapter to its reserved memory. Any thread may call this, even during steps."""

    def activate_adapter(self, reserved: ReservedT, image: ImageT_contra) -> None:
        """Make an adapter resident. Call this after `write_adapter` has returned."""

    def remove_adapter(self, version: AdapterVersion) -> None:
        """Free the memory of a resident or reserved adapter. Requests for it end with an error."""

    def has_room(self, num_bytes: int) -> bool:
        """Estimate whether `num_bytes` would fit if all idle adapters were evicted."""

    def stats(self) -> EngineStats:
        """Return the engine's current counters and gauges."""


AnyEngine: TypeAlias = Engine[Any, Any]
"""An engine of any kind. Callers must pass only images and reservations of the same kind."""
