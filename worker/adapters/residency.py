"""Records where each adapter version is in this worker. Pure.

A version moves through `State` along these paths, one load or eviction at a time:

    ABSENT -> READING -> IN_HOST_MEMORY -> PLACING -> RESIDENT
    READING -> PLACING (if host memory has no room for a copy)
    ABSENT -> PLACING (if the files were already read)
    READING or PLACING -> IN_HOST_MEMORY or ABSENT (if the load fails)
    RESIDENT -> IN_HOST_MEMORY or ABSENT (when the version is evicted)

`AdapterLoader` does the work and reports each change here. The engine's pool owns the device memory
and the host tier owns the host memory. The contents of both memories change only as part of a load
or an eviction.

Terms:

- held: resident, and not given up by this worker.
- replica: a version that was loaded while another worker held it. A worker may give up a replica,
  which means that it no longer offers the version.
- surplus: given up by this worker, but still in its memory. Surplus versions are evicted before all
  others.
- pinned: to be kept by this worker. Pinned versions are evicted after all others, and aren't given
  up.
- crowded out: the version found no device memory. The worker claims none of its jobs until an event
  occurs that may have freed memory.
- yielding: the version gets no new jobs, so that its memory becomes free for another version.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import Enum, auto
from math import inf
from typing import Protocol

from shared.protocol.ids import AdapterVersion
from shared.protocol.queue_replies import ReplicaStanding
from worker.adapters import load_policy, yield_policy
from worker.adapters.load_stats import LoadStats
from worker.adapters.records import AdapterRecord, ClaimView, MemoryWait, State
from worker.adapters.replica_policy import Replica
from worker.text.prompt_style import PromptStyle

Jobs = Mapping[AdapterVersion, int]
"""Number of running jobs by adapter version. The base model's jobs aren't included."""


class HostCopies(Protocol):
    """The versions with a copy in host memory."""

    def __contains__(self, version: AdapterVersion, /) -> bool:
        """Return whether host memory has a copy of a version."""


class Change(Enum):
    """Kinds of changes that subscribers are notified of."""

    HOLDINGS = auto()  # The set of versions that this worker holds has changed.
    LOADS = auto()  # A load has ended or waits for memory, so another one may begin.
    MEMORY = auto()  # Device memory may be free.


class Residency:
    """Keeps one record for each adapter version. No method blocks."""

    def __init__(self, base: AdapterVersion, style: PromptStyle) -> None:
        """Create the record of the base model, which has the `style` and is always resident."""
        self.stats = LoadStats()
        self._records = {base: AdapterRecord(base, State.RESIDENT, style)}
        self._residents = {base}
        """Index of the resident versions, so that claims need not search all records."""
        self._active: set[AdapterVersion] = set()
        """Index of the versions that jobs, claims or loads may depend on."""
        self._listeners: dict[Change, list[Callable[[], None]]] = {change: [] for change in Change}
        self._in_use: set[AdapterVersion] = set()
        """Versions that had running jobs when a version last found no device memory.

        They can be evicted once those jobs have ended."""
        self._num_shortages = 0
        self.pinned: frozenset[AdapterVersion] = frozenset()
        """Versions that this worker should keep. They are evicted after all others."""

    def subscribe(self, change: Change, listener: Callable[[], None]) -> None:
        """Call `listener` after each change of this kind."""
        self._listeners[change].append(listener)

    # Queries.

    def state(self, version: AdapterVersion) -> State:
        """Return the state of a version."""
        record = self._records.get(version)
        return record.state if record else State.ABSENT

    def is_resident(self, version: AdapterVersion) -> bool:
        """Return whether requests of a version can run."""
        return self.state(version) is State.RESIDENT

    def style(self, version: AdapterVersion) -> PromptStyle | None:
        """Return the prompt style of a version, or None if this worker hasn't read it yet."""
        record = self._records.get(version)
        return record.style if record else None

    @property
    def held(self) -> set[AdapterVersion]:
        """Resident versions that this worker hasn't given up."""
        return {v for v in self._residents if not self._records[v].is_surplus}

    @property
    def known(self) -> set[AdapterVersion]:
        """Versions that take device or host memory, including the base model."""
        return {v for v, r in self._records.items() if r.state is not State.ABSENT}

    @property
    def in_host_memory(self) -> set[AdapterVersion]:
        """Versions that are only in host memory."""
        return {v for v, r in self._records.items() if r.state is State.IN_HOST_MEMORY}

    @property
    def loading(self) -> set[AdapterVersion]:
        """Versions that this worker is loading. Other workers need not load them too."""
        return self._where(lambda record: record.is_loading or record.is_prefetching)

    @property
    def surplus(self) -> frozenset[AdapterVersion]:
        """Resident versions that this worker has given up. They are evicted before all others."""
        return frozenset(self._residents - self.held)

    @property
    def replicas(self) -> dict[AdapterVersion, Replica]:
        """Replicas that this worker may give up, by version."""
        replicas = ((version, self._records[version].replica) for version in self._residents)
        return {version: replica for version, replica in replicas if replica}

    @property
    def has_memory_queue(self) -> bool:
        """Whether any version waits for device memory."""
        return bool(self._where(lambda record: record.memory_wait is not MemoryWait.NONE))

    def is_refused(self, version: AdapterVersion, now_s: float) -> bool:
        """Return whether a version's jobs are left to other workers at monotonic time `now_s`."""
        record = self._records.get(version)
        return record is not None and record.refused_until_s > now_s

    def is_crowded_out(self, version: AdapterVersion) -> bool:
        """Return whether claims skip a version's jobs because it found no device memory."""
        record = self._records.get(version)
        return record is not None and record.is_crowded_out

    def is_awaited(self, version: AdapterVersion) -> bool:
        """Return whether claimed jobs wait until a version is resident."""
        record = self._records.get(version)
        return record is not None and record.is_loading

    def can_prefetch(self, version: AdapterVersion, now_s: float) -> bool:
        """Return whether a version may be loaded for jobs that are still in the queue."""
        if self.state(version) is not State.ABSENT or self.is_awaited(version):
            return False
        num_loading, num_waiting = self._load_counts()
        return not self.is_refused(version, now_s) and load_policy.can_prefetch(
            num_loading=num_loading,
            num_waiting=num_waiting,
            num_prefetching=len(self._where(lambda record: record.is_prefetching)),
        )

    def claim_view(self, now_s: float) -> ClaimView:
        """Return the snapshot for one claim. `now_s` is a monotonic time."""
        self._active = self._where(lambda record: not record.is_idle(now_s))
        held = self.held | self._where(lambda record: record.is_loading)
        yielding = self._where(lambda record: record.is_yielding)
        crowded_out = self._where(lambda record: record.is_crowded_out)
        refused = self._where(lambda record: record.refused_until_s > now_s)
        num_loading, num_waiting = self._load_counts()
        returning = self._where(lambda record: record.num_returning_jobs > 0)
        return ClaimView(
            held=frozenset(held),
            residents=tuple(sorted(held - yielding)),
            refused=tuple(sorted(refused | crowded_out | yielding)),
            max_cold=load_policy.max_cold(num_loading=num_loading, num_waiting=num_waiting),
            load_ms=self.stats.load_ms,
            steal_ms=self.stats.steal_ms,
            sees_all=not (crowded_out or returning or self._short),
            num_shortages=self._num_shortages,
        )

    # Jobs that wait for a version.

    def job_waits(self, version: AdapterVersion) -> None:
        """Record that a claimed job waits for a version. A surplus version is held again."""
        record = self._record(version)
        record.num_waiting_jobs += 1
        self._set_surplus(record, False)

    def job_served(self, version: AdapterVersion) -> None:
        """Record that a claimed job no longer waits for a version. The load may have failed."""
        record = self._record(version)
        assert record.num_waiting_jobs > 0
        record.num_waiting_jobs -= 1
        if not record.num_waiting_jobs and record.state is not State.RESIDENT:
            self._notify(Change.LOADS)

    def job_finished(self, jobs: Jobs) -> None:
        """Record that a running job has ended. `jobs` has the jobs that still run."""
        if yield_policy.may_be_free(self._in_use, jobs):
            self.memory_freed()

    def refuse(self, version: AdapterVersion, now_s: float) -> None:
        """Leave the jobs of a version to other workers for a while, because its load failed."""
        self._record(version).refused_until_s = now_s + load_policy.REFUSED_S

    # Loads.

    def prefetch_began(self, version: AdapterVersion) -> None:
        """Record that a version is being loaded for jobs that are still in the queue."""
        self._record(version).is_prefetching = True

    def prefetch_ended(self, version: AdapterVersion) -> None:
        """Record that the prefetch of a version has ended."""
        self._record(version).is_prefetching = False

    def reading(self, version: AdapterVersion) -> None:
        """Record that a thread has begun to read the files of a version."""
        self._move(version, State.READING, {State.ABSENT, State.IN_HOST_MEMORY})

    def was_read(self, version: AdapterVersion, style: PromptStyle, host: HostCopies) -> None:
        """Record that a version was read and checked. `host` has the versions in host memory."""
        self._record(version).style = style
        is_copied = version in host
        self._move(version, State.IN_HOST_MEMORY if is_copied else State.PLACING, {State.READING})
        for record in self._records.values():  # copies that were evicted for this one
            if record.state is State.IN_HOST_MEMORY and record.version not in host:
                record.state = State.ABSENT

    def placing(self, version: AdapterVersion) -> None:
        """Record that a version is being placed on the device. Its files were already read."""
        if self.state(version) is not State.PLACING:
            self._move(version, State.PLACING, {State.ABSENT, State.IN_HOST_MEMORY})

    def became_resident(self, version: AdapterVersion) -> None:
        """Record that a version is resident.

        The version can be evicted once its own jobs have ended. This may free device memory, so
        jobs of versions that were crowded out may be claimed again.
        """
        self._move(version, State.RESIDENT, {State.PLACING})
        self.stats.num_loads += 1
        if not self._short:
            self._end_yielding()
        self._notify(Change.HOLDINGS, Change.LOADS)
        self.memory_freed()  # its jobs may be gone already

    def not_loaded(self, version: AdapterVersion, *, is_copied: bool) -> None:
        """Record that a version was not loaded. `is_copied` is true if host memory has a copy."""
        record = self._record(version)
        if record.state is not State.RESIDENT:
            record.state = State.IN_HOST_MEMORY if is_copied else State.ABSENT

    def evicted(self, versions: Iterable[AdapterVersion], host: HostCopies) -> None:
        """Record that resident versions were evicted. `host` has the versions in host memory."""
        for version in versions:
            state = State.IN_HOST_MEMORY if version in host else State.ABSENT
            self._move(version, state, {State.RESIDENT})
            record = self._record(version)
            record.is_surplus, record.replica = False, None
            self.stats.num_evictions += 1
            self._notify(Change.HOLDINGS)

    def forgotten(self, version: AdapterVersion) -> None:
        """Drop the record of a version that the pool has forgotten, unless it is still needed."""
        record = self._records.get(version)
        if record and record.state is State.ABSENT and record.is_idle(now_s=inf):
            del self._records[version]
            self._active.discard(version)

    def memory_freed(self) -> None:
        """Record that device memory may be free. Crowded-out versions may be claimed again."""
        for version in self._active:
            self._records[version].is_crowded_out = False
        self._notify(Change.MEMORY)

    # Waits for device memory.

    def queued_for_memory(self, version: AdapterVersion) -> None:
        """Record that a version waits for its turn to ask for device memory."""
        self._record(version).memory_wait = MemoryWait.QUEUED

    def found_no_memory(self, version: AdapterVersion, jobs: Jobs) -> None:
        """Record that a version found no memory. If needed, let a version in use yield."""
        record = self._record(version)
        is_first = record.memory_wait is not MemoryWait.SHORT
        record.memory_wait = MemoryWait.SHORT
        self._num_shortages += 1
        self._in_use = yield_policy.versions_in_use(jobs, version)
        yielding = self._where(lambda record: record.is_yielding)
        chosen = yield_policy.version_to_yield(
            jobs, self._in_use, yielding, is_first_shortage=is_first
        )
        if chosen is not None:
            self._record(chosen).is_yielding = True
        self._notify(Change.LOADS)

    def memory_wait_ended(self, version: AdapterVersion) -> None:
        """Record that a version got memory, or that its load has stopped waiting for memory."""
        self._record(version).memory_wait = MemoryWait.NONE

    def crowded_out(self, version: AdapterVersion) -> None:
        """Record that a job returns to the queue because its version found no memory."""
        record = self._record(version)
        record.is_crowded_out = True
        record.num_returning_jobs += 1

    def job_returned(self, version: AdapterVersion) -> None:
        """Record that a crowded-out job is back in the queue and can be claimed again."""
        self._record(version).num_returning_jobs -= 1

    def claim_found_no_cold(self, view: ClaimView) -> None:
        """Record that a claim found no job whose version must be loaded first.

        If `view.sees_all` is true and no shortage has occurred since `view` was created, no version
        lacks memory.
        Therefore no version needs to yield any more.
        """
        if view.sees_all and view.num_shortages == self._num_shortages:
            self._end_yielding()

    # Replicas: versions that other workers hold too.

    def held_elsewhere(self, versions: Iterable[AdapterVersion]) -> None:
        """Record that other workers hold `versions`. This worker's copies become replicas."""
        for version in self.held.intersection(versions):
            self._record(version).replica = Replica()
            self.stats.num_replicas_added += 1

    def replicas_standing(
        self, standing: Mapping[AdapterVersion, ReplicaStanding], now_ms: float
    ) -> set[AdapterVersion]:
        """Record whether the pool needs each replica. Return the replicas that were given up."""
        gone = {version for version, copy in standing.items() if copy is ReplicaStanding.GONE}
        for version, copy in standing.items():
            record = self._records.get(version)
            if record is not None and record.replica is not None:
                record.replica = record.replica.after(copy, now_ms)
                if copy is ReplicaStanding.GONE:
                    self.stats.num_replicas_given_up += 1
                    self._set_surplus(record, True)
        return gone

    # Helpers.

    @property
    def _short(self) -> set[AdapterVersion]:
        return self._where(lambda record: record.memory_wait is MemoryWait.SHORT)

    def _record(self, version: AdapterVersion) -> AdapterRecord:
        """Return the record of a version, or a new one, so that the caller can change it."""
        self._active.add(version)
        return self._records.setdefault(version, AdapterRecord(version))

    def _where(self, is_wanted: Callable[[AdapterRecord], bool]) -> set[AdapterVersion]:
        """Return the versions in `_active` whose records satisfy `is_wanted`."""
        return {version for version in self._active if is_wanted(self._records[version])}

    def _load_counts(self) -> tuple[int, int]:
        """Return how many versions load for claimed jobs, and how many of these wait for memory."""
        loading = self._where(lambda record: record.is_loading)
        waiting = self._where(lambda record: record.memory_wait is not MemoryWait.NONE)
        return len(loading), len(loading & waiting)

    def _move(self, version: AdapterVersion, to: State, allowed: set[State]) -> None:
        record = self._record(version)
        assert record.state in allowed, f"{version}: {record.state} -> {to}"
        record.state = to
        if to is State.RESIDENT:
            self._residents.add(version)
        else:
            self._residents.discard(version)

    def _set_surplus(self, record: AdapterRecord, is_surplus: bool) -> None:
        if record.is_surplus != is_surplus:
            record.is_surplus = is_surplus
            self._notify(Change.HOLDINGS)

    def _end_yielding(self) -> None:
        for version in self._active:
            self._records[version].is_yielding = False

    def _notify(self, *changes: Change) -> None:
        for change in changes:
            for listener in self._listeners[change]:
                listener()
