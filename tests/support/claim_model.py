"""Model of a claim: which jobs a worker gets, in the order in which the script looks at them."""

from bisect import insort_left
from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from queue_model import Known, QueueModel, kinds_of
from queue_support import Actor

from shared.protocol.capabilities import EVERYTHING, Needs
from shared.protocol.jobs import Job

OVERDUE = 8
"""Foreign jobs that wait for longer than this many times `steal_ms` go before own jobs."""


@dataclass
class Room:
    sequences: int
    tokens: int

    def fits(self, job: Job) -> bool:
        return job.num_sequences <= self.sequences and job.cost <= self.tokens

    def take(self, job: Job) -> None:
        self.sequences -= job.num_sequences
        self.tokens -= job.cost


@dataclass(kw_only=True)
class ClaimModel:
    """One claim. Times below 0 are over at once, and all others are never over."""

    model: QueueModel
    actor: Actor
    others: list[Actor]
    """The other live workers."""
    budget: Room
    idle: Room
    """Capacity for preemptible jobs."""
    max_cold: int
    steal_ms: int
    load_ms: int
    reserved: Set[str]
    """Jobs for which other workers drain."""
    loading: Mapping[str, str]
    """Workers that load versions."""
    is_paused: bool
    """Whether the pool is paused, so that no worker gets a job."""
    taken: list[Known] = field(default_factory=list)
    queues: dict[str, list[Known]] = field(default_factory=dict)
    """Waiting jobs of each version that the worker serves and has not looked at."""

    def play(self) -> None:
        """Take jobs, and end those whose deadlines have passed."""
        owned = self.model.owned(self.actor.id)
        self.is_empty = not owned
        self.only_preemptible_follow = False
        runs_suspect = len(owned) == 1 and owned[0].is_suspect
        self.is_closed = self.budget.sequences <= 0 or runs_suspect or self.is_paused
        self.cold = self.max_cold
        ready = self.ready()
        own = [self.queues[version] for _, version in ready if version in self.actor.holds]
        own = [queue for queue in own if queue]
        foreign = [(score, version) for score, version in ready if version not in self.actor.holds]
        if own and self.cold > 0 and not self.is_closed:
            first = min(queue[0].score for queue in own)
            self.take_overdue([version for score, version in foreign if score < first])
        self.take_own(own)
        self.only_preemptible_follow = False
        for _, version in foreign:
            self.take_foreign(version)

    @property
    def is_parked(self) -> bool:
        return not self.is_closed and (not self.taken or self.cold == self.max_cold)

    @property
    def is_done(self) -> bool:
        return self.is_closed or self.only_preemptible_follow

    def ready(self) -> list[tuple[float, str]]:
        found = []
        for version, known in self.model.versions.items():
            waiting = self.model.waiting(version)
            needs = Needs(kinds=kinds_of(version), rank=8)
            is_open = not known.is_doomed and not known.is_paused
            if waiting and is_open and self.actor.serves.serves(needs):
                found.append((waiting[0].score, version))
                serves = self.actor.serves.serves
                self.queues[version] = [each for each in waiting if serves(each.needs)]
        return sorted(found)

    def take_overdue(self, versions: list[str]) -> None:
        """Take the first job of one of the versions if it has waited for too long."""
        for version in versions:
            limit_ms = self.load_ms if self.has_no_holder(version) else OVERDUE * self.steal_ms
            if self.may_load(version) and limit_ms < 0:
                self.take_from(version, limit=1)
                return

    def take_own(self, queues: list[list[Known]]) -> None:
        """Take jobs of all queues in the order of their scores."""
        queues.sort(key=lambda queue: (queue[0].score, queue[0].job.version))
        while queues and not self.is_done:
            queue = queues.pop(0)
            self.serve(queue.pop(0))
            if queue:
                insort_left(queues, queue, key=lambda queue: queue[0].score)

    def take_foreign(self, version: str) -> None:
        """Take jobs of a version that no worker holds, or that has waited for its holders."""
        if self.is_done or self.cold <= 0:
            return
        if self.may_load(version) and (self.steal_ms < 0 or self.has_no_holder(version)):
            self.take_from(version, limit=len(self.model.jobs))

    def take_from(self, version: str, *, limit: int) -> None:
        num_taken, queue = len(self.taken), self.queues[version]
        while queue and not self.is_done and len(self.taken) - num_taken < limit:
            self.serve(queue.pop(0))
        self.cold -= len(self.taken) > num_taken

    def serve(self, known: Known) -> None:
        """Take, end or skip a job, or take no further ones."""
        room = self.idle if known.job.is_preemptible else self.budget
        is_first = self.is_empty and not self.taken
        if known.is_expired:
            self.model.expire(known)
        elif is_first or (not known.is_suspect and room.fits(known.job)):
            self.taken.append(known)
            for each in (self.idle,) if known.job.is_preemptible else (self.idle, self.budget):
                each.take(known.job)
            self.is_closed = known.is_suspect or self.budget.sequences <= 0
        elif known.job.is_preemptible:
            self.only_preemptible_follow = True
        else:
            self.is_closed = known.job.id not in self.reserved

    def may_load(self, version: str) -> bool:
        return self.loading.get(version, self.actor.id) == self.actor.id

    def has_no_holder(self, version: str) -> bool:
        """Return whether no other worker holds the version and serves its jobs with features."""
        holders = [other for other in self.others if version in other.holds]
        if not holders or all(each.serves is EVERYTHING for each in (self.actor, *self.others)):
            return not holders
        has_features = any(
            known.is_open and known.job.features and known.job.version == version
            for known in self.model.jobs.values()
        )
        is_limited = all(holder.serves is not EVERYTHING for holder in holders)
        return has_features and self.actor.serves is EVERYTHING and is_limited
