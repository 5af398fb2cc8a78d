"""Model of a pool's queue: how each operation changes jobs, tenants and versions."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from queue_support import API

from shared.errors import ErrorCode, ReachedLimit
from shared.protocol.capabilities import AdapterKind, Needs
from shared.protocol.enqueue import EnqueueOptions, QueueLimits
from shared.protocol.ids import ApiId, JobId
from shared.protocol.jobs import UNFINISHED, Job, JobState
from shared.protocol.queue_replies import FinishOutcome
from shared.store.jobs.queue import PRIORITY_STEP

DORA = "c@1"
"""The only version whose jobs need a worker that serves DoRA."""
VERSIONS = ("a@1", "b@1", DORA)
DEATHS_UNTIL_SUSPECT = 2
FAILS_UNTIL_DEAD = 2
DEAD_JOBS_UNTIL_QUARANTINE = 3
ARRIVAL_STEP = 1 / 1024
PREEMPTIBLE_SCORE = 1e14
DAILY_TOKENS = 200
"""Limit of the API key with which some jobs are sent."""
MAX_USE = 1.5 * DAILY_TOKENS
"""Use of the key beyond which answers end that have more tokens than they reserved."""


@dataclass
class Known:
    job: Job
    options: EnqueueOptions
    is_expired: bool
    state: JobState = JobState.QUEUED
    tag: float = 0
    score: float = 0
    num_bytes: int = 0
    owner: str | None = None
    epoch: int = 0
    tries: int = 0
    deaths: int = 0
    """Deaths before it became a suspect; a death while it ran alone counts as two."""
    fails: int = 0
    """Deaths since it became a suspect."""
    ids: list[int] = field(default_factory=list)
    """Published tokens."""
    spent: int = 0
    """Tokens that it has used so far, as its worker reports them."""
    metered: int = 0
    """Tokens that its API key was charged."""
    held: int = 0
    """Tokens of its API key that are reserved for it."""
    cancelled_by: ErrorCode | None = None
    """Reason with which its worker was asked to stop."""
    apis: set[ApiId] = field(default_factory=lambda: {API})
    """API processes with clients of the job."""
    is_abandoned: bool = False
    """Whether the job is to be cancelled because no client waits for it."""
    has_key: bool = False
    """Whether later requests with its idempotency key get its answer."""
    is_erased: bool = False
    error: ErrorCode | None = None
    used: int = 0
    timeline: list[tuple[str, str | None, str | None]] = field(
        default_factory=lambda: [("accepted", None, None), ("queued", None, None)]
    )
    """Events with their workers and reasons."""
    finished: tuple[str, int] | None = None
    """Worker and try that ended the job."""
    events: dict[ApiId, list[Any]] = field(default_factory=lambda: defaultdict(list))

    @property
    def needs(self) -> Needs:
        return Needs(kinds=kinds_of(self.job.version), features=self.job.features, rank=8)

    @property
    def is_open(self) -> bool:
        return self.state in UNFINISHED

    @property
    def is_suspect(self) -> bool:
        return self.deaths >= DEATHS_UNTIL_SUSPECT

    @property
    def may_retry(self) -> bool:
        """Whether an operator can enqueue the job again."""
        is_server_error = self.error is not None and self.error.status >= 500
        return self.state is JobState.DEAD or (self.state is JobState.FAILED and is_server_error)

    def is_run_by(self, worker: str, epoch: int) -> bool:
        return (self.state, self.owner, self.epoch) == (JobState.RUNNING, worker, epoch)

    def note(self, event: str, reason: str | None = None) -> None:
        """Add an event of the present claim to the timeline."""
        self.timeline.append((event, self.owner, reason))

    def note_first_token(self) -> None:
        events = [event for event, _, _ in self.timeline]
        if "first_token" not in events[len(events) - events[::-1].index("claimed") :]:
            self.note("first_token")

    def report(self, *event: Any) -> None:
        """Send an event to the API process that accepted the job, and to its followers."""
        for api in {API, *self.apis}:
            self.events[api].append(event)


@dataclass
class Version:
    dead_jobs: int = 0
    is_quarantined: bool = False
    is_doomed: bool = False
    """Whether its waiting jobs are still to be ended."""
    is_paused: bool = False
    """Whether its jobs wait because an operator has paused its adapter."""
    requests: int = 0
    tokens: int = 0


@dataclass
class Account:
    """Expected use of the API key in the present day."""

    tokens: int = 0
    reserved: int = 0

    def fits(self, cost: int) -> bool:
        return self.tokens + self.reserved + cost <= DAILY_TOKENS

    def turn(self) -> None:
        """Begin another day, which pays what exceeded the limit."""
        self.tokens = max(0, self.tokens - DAILY_TOKENS)

    def meter(self, known: Known, used: int, *, has_ended: bool) -> None:
        """Charge a job with what it has used since its last charge."""
        if known.options.key_id:
            new = max(0, used - known.metered)
            left = 0 if has_ended else max(0, known.held - new)
            self.tokens, self.reserved = self.tokens + new, self.reserved - known.held + left
            known.metered, known.held = known.metered + new, left


class QueueModel:
    """Expected state of a pool. Its methods are called for operations that take effect."""

    def __init__(self) -> None:
        self.jobs: dict[str, Known] = {}
        self.versions = {version: Version() for version in VERSIONS}
        self.account = Account()
        self.living: set[ApiId] = set()
        self.reporting: list[ApiId] = []
        """Front ends whose deaths no sweep has noticed, sorted."""
        self.counts: Counter[str] = Counter()
        self.incidents: list[tuple[str, str | None]] = []
        self.virtual_time = {False: 0.0, True: 0.0}
        self.tags: dict[tuple[str, bool], float] = {}
        """Tags of fair queueing by tenant, and whether they are those of preemptible jobs."""
        self._charged: dict[str, list[tuple[Known, str, int]]] = {}
        self._keyed: dict[tuple[str, str], Known] = {}

    def of(self, state: JobState) -> list[Known]:
        return [known for known in self.jobs.values() if known.state == state]

    def owned(self, worker: str) -> list[Known]:
        return [known for known in self.of(JobState.RUNNING) if known.owner == worker]

    def cancelled(self, worker: str) -> set[JobId]:
        return {known.job.id for known in self.owned(worker) if known.cancelled_by}

    def waiting(self, version: str) -> list[Known]:
        found = [known for known in self.of(JobState.QUEUED) if known.job.version == version]
        return sorted(found, key=lambda known: (known.score, known.job.id))

    @property
    def silent(self) -> list[str]:
        """Workers that were given up and whose jobs were charged with their deaths."""
        return sorted(self._charged)

    # Requests.

    def earlier(self, known: Known) -> Known | None:
        """Return the job of an earlier request with the same idempotency key."""
        key = known.options.idempotency
        found = self._keyed.get((known.job.tenant, key.key)) if key else None
        return found if found and found.has_key and not found.is_erased else None

    def reached_limit(self, job: Job, limits: QueueLimits) -> tuple[ReachedLimit, int] | None:
        """Return the limit that refuses a job, and the number of waiting jobs that it counts."""
        waiting = self.of(JobState.QUEUED)
        of_tenant = [known for known in waiting if known.job.tenant == job.tenant]
        for limit, most, number in (
            (ReachedLimit.POOL, limits.max_waiting, len(waiting)),
            (ReachedLimit.ADAPTER, limits.max_waiting_adapter, len(self.waiting(job.version))),
            (ReachedLimit.TENANT, limits.max_waiting_tenant, len(of_tenant)),
        ):
            if number >= most:
                return limit, number
        return None

    def enqueue(self, known: Known) -> None:
        job, lane = known.job, (known.job.tenant, known.job.is_preemptible)
        known.tag = max(self.virtual_time[job.is_preemptible], self.tags.get(lane, 0))
        self.tags[lane] = known.tag + job.cost / known.options.weight
        boost = job.priority * PRIORITY_STEP
        if job.is_preemptible:
            boost -= PREEMPTIBLE_SCORE
        self.jobs[job.id] = known
        known.score = known.tag - boost + len(self.jobs) * ARRIVAL_STEP
        if known.options.key_id:
            known.held = job.cost
            self.account.reserved += job.cost
        if known.options.idempotency:
            known.has_key = True
            self._keyed[job.tenant, known.options.idempotency.key] = known

    def cancel(self, known: Known, reason: ErrorCode = ErrorCode.CANCELLED) -> None:
        if known.state is JobState.QUEUED:
            self._end_unrun(known, JobState.CANCELLED, reason)
        elif known.state is JobState.RUNNING:
            self._ask_to_stop(known, reason)

    def attach(self, known: Known, api: ApiId) -> None:
        if known.is_open:
            known.apis.add(api)
            known.is_abandoned = False

    def abandon(self, known: Known, api: ApiId, *, at_once: bool) -> None:
        if not known.is_open:
            return
        known.apis.discard(api)
        if self.may_abandon(known):
            known.is_abandoned = True
            if at_once:
                self.cancel_abandoned(known)

    def may_abandon(self, known: Known) -> bool:
        return not known.options.keeps_running and not known.apis & self.living

    def cancel_abandoned(self, known: Known) -> None:
        known.is_abandoned = known.has_key = False
        self.cancel(known)

    # Calls of workers.

    def start(self, known: Known, worker: str, epoch: int) -> None:
        known.state, known.owner, known.epoch = JobState.RUNNING, worker, epoch
        known.tries += 1
        known.note("claimed")
        lane = known.job.is_preemptible
        self.virtual_time[lane] = max(self.virtual_time[lane], known.tag)

    def publish(self, known: Known, try_: int, token: int, *, spent: int | None) -> None:
        """Publish a token. If it is stored, its worker says how many tokens the job has `spent`."""
        known.ids.append(token)
        known.report("tokens", try_, token)
        known.note_first_token()
        if spent is None or not known.options.key_id:
            return
        self.account.meter(known, spent, has_ended=False)
        if not known.held and self.account.tokens + self.account.reserved > MAX_USE:
            self._ask_to_stop(known, ErrorCode.RATE_LIMIT_EXCEEDED)

    def outcome(self, known: Known, worker: str, try_: int, epoch: int) -> FinishOutcome:
        """Return the outcome of a call that ends a job."""
        if known.is_run_by(worker, epoch):
            return FinishOutcome.OK
        is_again = known.finished == (worker, try_) and not known.is_erased
        return FinishOutcome.AGAIN if is_again else FinishOutcome.FENCED

    def finish(
        self, known: Known, state: JobState, *, used: int | None, error: ErrorCode | None = None
    ) -> None:
        assert known.owner is not None
        known.finished = known.owner, known.tries
        if state is JobState.CANCELLED:
            error = known.cancelled_by
        if used is not None:
            self._charge(known, used - known.job.cost)
        self._end(known, state, error, used or 0)
        version = self.versions[known.job.version]
        version.requests, version.tokens = version.requests + 1, version.tokens + (used or 0)
        if state is JobState.DONE:
            version.dead_jobs = 0

    def release(self, jobs: Sequence[Known], reason: str = "released") -> None:
        for known in jobs:
            if known.cancelled_by:
                self._end(known, JobState.CANCELLED, known.cancelled_by)
            else:
                self._requeue(known, "released", reason)

    def bury(self, worker: str) -> None:
        jobs = self.owned(worker)
        self.incidents.append(("worker_lost", worker))
        self.counts["workers_lost"] += 1
        for known in jobs:
            known.note("worker_lost")
            if known.cancelled_by:
                self._end(known, JobState.CANCELLED, known.cancelled_by)
                continue
            self._charge_death(known, worker, was_alone=len(jobs) == 1)
            if known.fails >= FAILS_UNTIL_DEAD:
                self._die(known)
            else:
                self._requeue(known, "retried", "worker_lost")

    def pardon(self, worker: str) -> None:
        """Cancel the charges of a worker that proves alive."""
        for known, counter, number in self._charged.pop(worker, ()):
            if known.is_erased:
                continue
            setattr(known, counter, getattr(known, counter) - number)
            version = self.versions[known.job.version]
            if known.state is JobState.DEAD and version.dead_jobs:
                version.dead_jobs -= 1

    # Sweeps.

    def revive(self, api: ApiId) -> None:
        self.living.add(api)
        if api not in self.reporting:
            self.reporting = sorted([*self.reporting, api])
            self.incidents.append(("front_end_joined", api))

    def sweep(self) -> None:
        for api in self.reporting:
            if api not in self.living:
                self.incidents.append(("front_end_lost", api))
        self.reporting = [api for api in self.reporting if api in self.living]
        for known in self.of(JobState.QUEUED):
            if known.is_expired:
                self.expire(known)
            elif self.versions[known.job.version].is_doomed:
                self._end_unrun(known, JobState.FAILED, ErrorCode.ADAPTER_UNAVAILABLE)
        running = {known.job.version for known in self.of(JobState.RUNNING)}
        for name, version in self.versions.items():
            version.is_doomed = version.is_doomed and name in running

    def overrun(self, known: Known) -> None:
        """End a running job whose deadline has passed long ago."""
        self._end(known, JobState.EXPIRED, ErrorCode.DEADLINE_EXCEEDED)

    def release_quarantine(self, name: str) -> None:
        version = self.versions[name]
        version.is_quarantined = version.is_doomed = False
        self.incidents.append(("adapter_released", name))

    def expire(self, known: Known) -> None:
        self._end_unrun(known, JobState.EXPIRED, ErrorCode.DEADLINE_EXCEEDED)

    def _charge(self, known: Known, tokens: int) -> None:
        lane = known.job.tenant, known.job.is_preemptible
        self.tags[lane] += tokens / known.options.weight

    def _charge_death(self, known: Known, worker: str, *, was_alone: bool) -> None:
        counter, number = "deaths", DEATHS_UNTIL_SUSPECT if was_alone else 1
        if known.is_suspect:
            counter, number = "fails", 1
        setattr(known, counter, getattr(known, counter) + number)
        self._charged.setdefault(worker, []).append((known, counter, number))

    def _die(self, known: Known) -> None:
        self._end(known, JobState.DEAD, ErrorCode.POISON_JOB)
        self.incidents.append(("job_dead", known.job.id))
        name = known.job.version
        version = self.versions[name]
        version.dead_jobs += 1
        if version.dead_jobs >= DEAD_JOBS_UNTIL_QUARANTINE:
            if not version.is_quarantined:
                self.incidents.append(("adapter_quarantined", name))
            version.is_quarantined = version.is_doomed = True

    def _ask_to_stop(self, known: Known, reason: ErrorCode) -> None:
        if not known.cancelled_by:
            known.cancelled_by = reason
            known.note("cancelling", reason)

    def _requeue(self, known: Known, counter: str, reason: str) -> None:
        known.note("requeued", reason)
        known.state, known.owner = JobState.QUEUED, None
        self.counts[counter] += 1
        known.report("retry", known.tries)

    def _end_unrun(self, known: Known, state: JobState, error: ErrorCode) -> None:
        self._charge(known, -known.job.cost)
        self._end(known, state, error)

    def _end(self, known: Known, state: JobState, error: ErrorCode | None, used: int = 0) -> None:
        known.note("completed" if state is JobState.DONE else state, error)
        known.state, known.owner, known.error, known.used = state, None, error, used
        known.is_abandoned = False
        if error is not None and error.status in (429, 503):
            known.has_key = False  # a request that says "try again" is no answer
        self.account.meter(known, used, has_ended=True)
        self.counts[state] += 1
        known.report("end", known.tries, state, error)


def kinds_of(version: str) -> frozenset[AdapterKind]:
    return frozenset({AdapterKind.DORA} if version == DORA else ())
