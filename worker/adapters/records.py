"""A worker's records of adapter versions, and the snapshot of them that a claim uses. Pure."""

from dataclasses import dataclass
from enum import Enum, auto

from shared.protocol.ids import AdapterVersion
from worker.adapters.replica_policy import Replica
from worker.text.prompt_style import PromptStyle


class State(Enum):
    """Where the weights of a version are in this worker."""

    ABSENT = auto()  # Neither in host memory nor on the device.
    READING = auto()  # A loader thread reads and checks the version's files.
    IN_HOST_MEMORY = auto()  # A copy in host memory can be placed on the device.
    PLACING = auto()  # The version waits for device memory, or is being copied.
    RESIDENT = auto()  # On the device, so that requests of the version can run.


class MemoryWait(Enum):
    """Whether a version that is being placed waits for device memory."""

    NONE = auto()  # The version isn't being placed, or already has memory.
    QUEUED = auto()  # The version waits for its turn to ask for device memory.
    SHORT = auto()  # The version asked, but the adapters in use left too little.


@dataclass(slots=True)
class AdapterRecord:
    """Everything that this worker knows about one version. Only `Residency` changes it."""

    version: AdapterVersion
    state: State = State.ABSENT
    style: PromptStyle | None = None
    """Prompt style of the version; None until this worker has read the version's files."""
    num_waiting_jobs: int = 0
    """Number of claimed jobs that wait until the version is resident."""
    is_prefetching: bool = False
    """Whether the version is being loaded for jobs that are still in the queue."""
    refused_until_s: float = 0.0
    """Monotonic time until which the version's jobs are left to other workers."""
    memory_wait: MemoryWait = MemoryWait.NONE
    is_crowded_out: bool = False
    """Whether claims skip the version's jobs because the version found no device memory."""
    num_returning_jobs: int = 0
    """Number of jobs being returned to the queue because the version found no device memory."""
    is_yielding: bool = False
    """Whether claims skip the version's jobs to free its memory for another version."""
    replica: Replica | None = None
    """State as a replica that this worker may give up; None if the version isn't a replica."""
    is_surplus: bool = False
    """Whether this worker has given up the version. The version stays in memory until evicted."""

    @property
    def is_loading(self) -> bool:
        """Whether claimed jobs wait until the version is resident."""
        return self.num_waiting_jobs > 0 and self.state is not State.RESIDENT

    def is_idle(self, now_s: float) -> bool:
        """Whether no job, claim or load depends on this record. `now_s` is a monotonic time."""
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
    """Snapshot of the adapter records for one claim."""

    held: frozenset[AdapterVersion]
    """Versions that the worker holds or is loading for claimed jobs, including the base model."""
    residents: tuple[AdapterVersion, ...]
    """Held versions that aren't yielding. The claim takes their jobs before other jobs."""
    refused: tuple[AdapterVersion, ...]
    """Versions whose jobs this claim skips."""
    max_cold: int
    """This claim may take jobs of at most this number of versions that aren't in `held`."""
    load_ms: int
    """Expected duration of a load in ms, without waits for device memory."""
    steal_ms: int
    """Time in ms for which a job is reserved for workers that hold its adapter."""
    sees_all: bool
    """Whether the claim considers the jobs of every version that lacks device memory.

    If false, some of these jobs are skipped, already claimed, or on their way back to the queue."""
    num_shortages: int
    """Number of shortages of device memory from the worker's start until the snapshot."""
