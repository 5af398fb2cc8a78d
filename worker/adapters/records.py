"""What a worker knows of each adapter version, and what a claim gets to know of it. Pure."""

from dataclasses import dataclass
from enum import Enum, auto

from shared.protocol.ids import AdapterVersion
from worker.adapters.replica_policy import Replica
from worker.text.prompt_style import PromptStyle


class State(Enum):
    """Where the weights of a version are in this worker."""

    ABSENT = auto()  # Neither in host memory nor on the device.
    READING = auto()  # A loader thread reads and checks its files.
    IN_HOST_MEMORY = auto()  # A copy in host memory can be placed on the device.
    PLACING = auto()  # It waits for device memory, or is copied there.
    RESIDENT = auto()  # It is on the device, and requests of the version can run.


class MemoryWait(Enum):
    """What a version that is being placed waits for."""

    NONE = auto()  # It isn't placed, or has its memory.
    QUEUED = auto()  # It waits for its turn to ask for device memory.
    SHORT = auto()  # It asked, and the adapters in use left too little memory.


@dataclass(slots=True)
class AdapterRecord:
    """Everything that this worker knows of one version; only `Residency` writes to it."""

    version: AdapterVersion
    state: State = State.ABSENT
    style: PromptStyle | None = None
    """How its prompts are written; None until its files were read here."""
    num_waiting_jobs: int = 0
    """Claimed jobs that wait until the version is resident."""
    is_prefetching: bool = False
    """Whether it is loaded for jobs that are still in the queue."""
    refused_until_s: float = 0.0
    """Monotonic time until which its jobs are left to other workers."""
    memory_wait: MemoryWait = MemoryWait.NONE
    is_crowded_out: bool = False
    """Whether its jobs aren't claimed because it found no device memory."""
    num_returning_jobs: int = 0
    """Jobs without device memory that aren't back in the queue yet."""
    is_yielding: bool = False
    """Whether its jobs aren't claimed so that its memory becomes free for another version."""
    replica: Replica | None = None
    """Set while other workers hold the version too, and this one may give it up."""
    is_surplus: bool = False
    """Whether it was given up: it is still in memory, but evicted before all others."""

    @property
    def is_loading(self) -> bool:
        """Whether claimed jobs wait for it."""
        return self.num_waiting_jobs > 0 and self.state is not State.RESIDENT

    def is_idle(self, now_s: float) -> bool:
        """Whether no job, claim or load waits for it, or for what it does."""
        return not (
            self.num_waiting_jobs
            or self.is_prefetching
            or self.memory_wait is not MemoryWait.NONE
            or self.is_crowded_out
            or self.num_returning_jobs
            or self.is_yielding
            or self.refused_until_s > now_s
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimView:
    """What one claim needs to know of adapters, as of one moment."""

    held: frozenset[AdapterVersion]
    """Versions that are resident, or will be soon. The base model is one of them."""
    residents: tuple[AdapterVersion, ...]
    """Versions whose jobs are claimed before others."""
    refused: tuple[AdapterVersion, ...]
    """Versions whose jobs aren't claimed."""
    max_cold: int
    """How many further versions may be loaded."""
    load_ms: int
    """How long a load takes, once there is device memory for it."""
    steal_ms: int
    """How long jobs wait for workers that hold their adapter before others load it."""
    sees_all: bool
    """Whether no version that needs device memory is hidden from this claim."""
    num_shortages: int
    """How often device memory had been short by then."""
