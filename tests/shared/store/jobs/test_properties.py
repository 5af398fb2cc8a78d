"""Random sequences of operations, compared with a simple model of the queue."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from queue_support import API, LIMITS, NEVER_MS, Actor, make_adapter, make_job, tokens

from shared.errors import JobFailed, LeaseLost
from shared.protocol.capabilities import EVERYTHING, AdapterKind, Capabilities, Needs
from shared.protocol.codec import decode_events
from shared.protocol.embeddings import EmbeddingParams
from shared.protocol.events import End, Retry
from shared.protocol.ids import ApiId, WorkerId
from shared.protocol.jobs import ClaimedJob, Job, JobState
from shared.protocol.queue_replies import FinishOutcome, ReplicaStanding
from shared.store.adapters.registry import Registry
from shared.store.adapters.residency import ResidencyStore
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import connect
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

T = TypeVar("T")
STALL_MS = 100_000
"""Gap between sweeps that counts as a stall: more than half of the actors' leases."""
VERSIONS = ("a@1", "b@1", "c@1")
DORA = "c@1"
"""The only version that workers with the capabilities `PLAIN` don't serve."""
PLAIN = Capabilities(kinds=frozenset(), features=frozenset(), max_rank=8)
ABLE = Capabilities(kinds=frozenset({AdapterKind.DORA}), features=frozenset(), max_rank=None)
OTHER_API = ApiId("api-2")
TENANTS = ("t1", "t2", "t3")
QUICK = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
pytestmark = pytest.mark.timeout(300)
a_request = st.fixed_dictionaries(
    {
        "version": st.sampled_from(VERSIONS),
        "tenant": st.sampled_from(TENANTS),
        "priority": st.sampled_from((0, 0, 1)),
        "cost": st.integers(1, 50),
        "n": st.sampled_from((1, 1, 2, 5)),
        "embedding": st.sampled_from((None, None, None, EmbeddingParams())),
        "is_expired": st.sampled_from((False, False, False, True)),
    }
)


@dataclass
class Known:
    """Expected state of one job."""

    job: Job
    is_expired: bool
    state: JobState = JobState.QUEUED
    owner: str | None = None
    tries: int = 0
    retries: int = 0
    deaths: int = 0
    """Deaths before it became a suspect; a death while it ran alone counts as two."""
    fails: int = 0
    """Deaths since it became a suspect."""
    is_cancelled: bool = False
    apis: set[ApiId] = field(default_factory=lambda: {API})
    """API processes with clients of the job."""
    is_abandoned: bool = False
    """Whether the job is to be cancelled because no client waits for it."""
    is_erased: bool = False

    @property
    def needs(self) -> Needs:
        kinds = frozenset({AdapterKind.DORA} if self.job.version == DORA else ())
        return Needs(kinds=kinds, features=self.job.features, rank=8)

    @property
    def is_open(self) -> bool:
        return self.state in (JobState.QUEUED, JobState.RUNNING)

    @property
    def is_suspect(self) -> bool:
        return self.deaths >= 2


class QueueMachine(RuleBasedStateMachine):
    """No sequence of operations loses a job or makes an index inconsistent."""

    url = ""
    examples = 0
    running = Bundle("running")
    zombies = Bundle("zombies")

    @initialize()
    def connect(self) -> None:
        type(self).examples += 1
        self.runner = asyncio.Runner()
        self.keys = Keys(f"property-{self.examples}")
        self.redis = self.run(self.make_client())
        self.run(self.register_adapters())
        self.residency = ResidencyStore(self.redis, self.keys)
        self.queue = Queue(self.redis, self.keys, residency=self.residency)
        for api in (API, OTHER_API):
            self.run(self.queue.beat_api(api))
        self.views = PoolViews(self.redis, self.keys)
        self.jobs: dict[str, Known] = {}
        self.actors: dict[str, Actor] = {}
        self.num_actors = 0
        self.charged: dict[str, list[tuple[Known, str, int]]] = {}
        """Deaths charged to jobs, by silent worker."""

    async def make_client(self) -> Any:
        return connect(self.url)

    async def register_adapters(self) -> None:
        for version in VERSIONS:
            kinds = frozenset({AdapterKind.DORA} if version == DORA else ())
            await Registry(self.redis, self.keys).add_adapter(make_adapter(version, kinds=kinds))

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    # Operations of clients.

    @rule(requests=st.lists(a_request, min_size=1, max_size=6))
    def enqueue(self, requests: list[dict[str, Any]]) -> None:
        for request in requests:
            fields = dict(request)
            is_expired = fields.pop("is_expired")
            job = make_job(**fields, deadline_ms=0 if is_expired else NEVER_MS)
            queued = [k for k in self.of(JobState.QUEUED) if k.job.version == job.version]
            known = Known(job, is_expired)
            if self.actors and not any(a.serves.serves(known.needs) for a in self.actors.values()):
                with pytest.raises(JobFailed, match="no live worker"):
                    self.run(self.queue.enqueue(job, LIMITS))
                continue
            position = self.run(self.queue.enqueue(job, LIMITS)).position
            assert 1 <= position <= len(queued) + 1
            self.jobs[job.id] = known

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        known = data.draw(st.sampled_from(list(self.jobs.values())))
        if known.state == JobState.QUEUED:
            known.state = JobState.CANCELLED
        elif known.state == JobState.RUNNING:
            known.is_cancelled = True
        expected = None if known.is_erased else known.state
        assert self.run(self.queue.cancel(known.job.id)) == expected

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), api=st.sampled_from((API, OTHER_API)))
    def attach(self, data: st.DataObject, api: ApiId) -> None:
        known = data.draw(st.sampled_from(list(self.jobs.values())))
        self.run(self.queue.attach(known.job.id, api))
        if known.is_open:
            known.apis.add(api)
            known.is_abandoned = False

    @precondition(lambda self: self.jobs)
    @rule(
        data=st.data(), api=st.sampled_from((API, OTHER_API)), grace_ms=st.sampled_from((0, 10**9))
    )
    def abandon(self, data: st.DataObject, api: ApiId, grace_ms: int) -> None:
        known = data.draw(st.sampled_from(list(self.jobs.values())))
        self.run(self.queue.abandon(known.job.id, api, grace_ms=grace_ms))
        if not known.is_open:
            return
        known.apis.discard(api)
        if known.apis:
            return
        known.is_abandoned = known.is_abandoned or grace_ms > 0
        if grace_ms == 0 and known.state == JobState.QUEUED:
            known.state = JobState.CANCELLED
        elif grace_ms == 0:
            known.is_cancelled, known.is_abandoned = True, False

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def erase(self, data: st.DataObject) -> None:
        known = data.draw(st.sampled_from(list(self.jobs.values())))
        expected = None if known.is_erased else known.state
        assert self.run(self.queue.erase(known.job.id)) == expected
        known.is_erased = not known.is_open

    # Operations of workers.

    @precondition(lambda self: len(self.actors) < 3)
    @rule(
        holds=st.sets(st.sampled_from(VERSIONS)),
        serves=st.sampled_from((EVERYTHING, EVERYTHING, PLAIN, ABLE)),
    )
    def start(self, holds: set[str], serves: Capabilities = EVERYTHING) -> None:
        self.num_actors += 1
        name = f"w{self.num_actors}"
        held = sorted(holds - {DORA} if serves is PLAIN else holds)
        actor = Actor(self.queue, self.redis, self.keys, name, held, serves)
        self.actors[name] = self.run(actor.register())

    @precondition(lambda self: self.actors)
    @rule(
        target=running,
        data=st.data(),
        sequences=st.sampled_from((0, 1, 3, 8)),
        max_tokens=st.sampled_from((0, 30, 100, 1000)),
        max_cold=st.sampled_from((0, 0, 1, 2)),
        steal_ms=st.sampled_from((0, NEVER_MS)),
    )
    def claim(
        self, data: st.DataObject, sequences: int, max_tokens: int, max_cold: int, steal_ms: int
    ) -> Any:
        actor = self.draw_actor(data)
        owned = self.owned(actor)
        own_queue = self.run(self.own_queue(actor))
        claimed = self.run(
            actor.claim(
                sequences=sequences, tokens=max_tokens, max_cold=max_cold, steal_ms=steal_ms
            )
        )
        assert all(actor.serves.serves(self.jobs[c.job.id].needs) for c in claimed)
        self.check_capacity(owned, claimed, sequences, max_tokens)
        self.check_suspects(owned, claimed)
        if max_cold == 0 and not any(known.is_suspect for known in own_queue):
            expected = [known.job.id for known in own_queue][: len(claimed)]
            assert [c.job.id for c in claimed] == expected
            if len(claimed) < len(own_queue) and not any(k.is_suspect for k in owned):
                self.check_full(own_queue[len(claimed)], owned, claimed, sequences, max_tokens)
        for c in claimed:
            self.book(c, actor)
        self.run(self.record_expired())
        return multiple(*((actor.id, c) for c in claimed))

    @rule(held=consumes(running), used=st.integers(0, 100))
    def finish(self, held: tuple[str, ClaimedJob], used: int) -> None:
        name, claimed = held
        known = self.jobs[claimed.job.id]
        is_owner = known.owner == name and known.tries == claimed.try_
        outcome = self.run(self.zombie(name).finish(claimed, used=used))
        assert outcome == (FinishOutcome.OK if is_owner else FinishOutcome.FENCED)
        if is_owner:
            known.state, known.owner = JobState.DONE, None

    @precondition(lambda self: self.actors)
    @rule(data=st.data(), keep=st.booleans())
    def release(self, data: st.DataObject, keep: bool) -> None:
        actor = self.draw_actor(data)
        owned = self.owned(actor)[1 if keep else 0 :]
        ids = [known.job.id for known in owned]
        assert self.run(self.queue.release(actor.id, ids)) == len(ids)
        self.unbook(owned)

    @precondition(lambda self: self.actors)
    @rule(data=st.data(), keep=st.booleans())
    def lose_replies_and_reconcile(self, data: st.DataObject, keep: bool) -> None:
        actor = self.draw_actor(data)
        owned = self.owned(actor)
        known = [k.job.id for k in owned[: 1 if keep else 0]]
        lost = owned[len(known) :]
        assert self.run(self.queue.reconcile(actor.id, known, grace_ms=0)) == len(lost)
        self.unbook(lost)

    @precondition(lambda self: self.actors)
    @rule(data=st.data(), add=st.sets(st.sampled_from(VERSIONS)))
    def load_and_drop(self, data: st.DataObject, add: set[str]) -> None:
        actor = self.draw_actor(data)
        held = sorted(add - {DORA} if actor.serves is PLAIN else add)
        drop = sorted(set(actor.holds) - set(held))
        self.run(self.residency.set_residents(actor.id, add=held, remove=drop))
        actor.holds = held

    @precondition(lambda self: sum(bool(actor.holds) for actor in self.actors.values()) > 1)
    @rule(data=st.data(), steal_ms=st.sampled_from((0, NEVER_MS)))
    def shrink(self, data: st.DataObject, steal_ms: int) -> None:
        copies = [(actor, version) for actor in self.actors.values() for version in actor.holds]
        actor, version = data.draw(st.sampled_from(copies))
        call = self.residency.shrink(actor.id, {version: 0}, due=[version], steal_ms=steal_ms)
        copy = self.run(call)[version]
        holders = [a for a in self.actors.values() if a is not actor and version in a.holds]
        others = [a for a in holders if serves_all_of(a.serves, actor.serves)]
        assert (copy is ReplicaStanding.SOLE) == (not others)
        if copy is ReplicaStanding.GONE:
            actor.holds = [held for held in actor.holds if held != version]

    @precondition(lambda self: self.actors)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        actor = self.draw_actor(data)
        owned = self.owned(actor)
        self.run(self.queue.leave(actor.id))
        self.unbook(owned)
        del self.actors[actor.id]

    @precondition(lambda self: self.actors)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        actor = self.draw_actor(data)
        self.bury(actor)
        with pytest.raises(LeaseLost):
            self.run(self.queue.publish(actor.id, {API: [tokens(make_job(), 0, [1])]}))
        self.cancel_charges(actor.id)  # its heartbeat cancels the charges

    @precondition(lambda self: self.charged)
    @rule(data=st.data())
    def speak_again(self, data: st.DataObject) -> None:
        """A worker that was given up proves alive, which cancels the charges of its jobs."""
        name = data.draw(st.sampled_from(sorted(self.charged)))
        with pytest.raises(LeaseLost):
            self.run(self.zombie(name).claim())
        self.cancel_charges(name)

    @rule()
    def stall(self) -> None:
        """Redis stalls for longer than a lease. No worker is given up."""
        self.run(self.queue.reap())
        self.run(self.shift_back())
        for actor in self.actors.values():
            self.run(self.redis.zadd(self.keys.workers, {actor.id: 1}))
        for _ in range(2):
            assert self.run(self.queue.reap()).workers == 0
        for actor in self.actors.values():
            self.run(self.queue.beat(actor.id, lease_ms=60_000, info=actor.info))
        self.run(self.record_expired())

    @precondition(lambda self: self.of(JobState.RUNNING))
    @rule(data=st.data())
    def publish_as_another_claim(self, data: st.DataObject) -> None:
        """Of two owners of a try, as after a failover, only the one that Redis knows can write."""
        known = data.draw(st.sampled_from(self.of(JobState.RUNNING)))
        assert known.owner is not None
        late = {API: [tokens(known.job, 0, [1])]}
        epochs = {known.job.id: 1}
        standing = self.run(self.queue.publish(WorkerId(known.owner), late, claim_epochs=epochs))
        assert standing.fenced == {known.job.id}

    @rule(times=st.integers(2, 4))
    def crash_again_and_again(self, times: int) -> None:
        """A worker dies of each job that it claims."""
        for _ in range(times):
            self.start(set(VERSIONS))
            actor = self.actors[f"w{self.num_actors}"]
            for claimed in self.run(actor.claim(sequences=1)):
                self.book(claimed, actor)
            self.bury(actor)

    async def pardon(self) -> None:
        """Keep versions out of quarantine, which ends their waiting jobs and has its own tests."""
        for version in VERSIONS:
            await self.redis.hset(self.keys.version(version), "dead_jobs", 0)

    async def shift_back(self) -> None:
        """Move all times in Redis into the past by the length of the stall."""
        await self.redis.hincrby(self.keys.counters, "swept", -STALL_MS)
        for known in self.of(JobState.QUEUED):
            await self.redis.hincrby(self.keys.job(known.job.id), "deadline", -STALL_MS)
            await self.redis.zincrby(self.keys.due, -STALL_MS, known.job.id)

    # Invariants after each operation.

    @invariant()
    def every_index_is_true(self) -> None:
        if hasattr(self, "runner"):
            self.run(self.check_indexes())

    async def check_indexes(self) -> None:
        redis, keys = self.redis, self.keys
        waiting = self.of(JobState.QUEUED)
        assert int(await redis.hget(keys.counters, "waiting") or 0) == len(waiting)
        for tenant in TENANTS:
            count = int(await redis.hget(keys.tenant(tenant), "waiting") or 0)
            assert count == sum(known.job.tenant == tenant for known in waiting)
        heads = {}
        for version in VERSIONS:
            entries = await redis.zrange(keys.queue(version), 0, -1, withscores=True)
            ids = {raw.decode() for raw, _ in entries}
            assert ids == {known.job.id for known in waiting if known.job.version == version}
            if entries:
                heads[version] = entries[0][1]
        await self.check_indexes_of_jobs()
        held = {version for actor in self.actors.values() for version in actor.holds}
        assert await self.scores(keys.ready) == heads
        assert await self.scores(keys.cold) == {v: s for v, s in heads.items() if v not in held}
        featured = [await redis.hkeys(keys.featured(version)) for version in VERSIONS]
        assert {raw.decode() for ids in featured for raw in ids} == {
            job for job, known in self.jobs.items() if known.is_open and known.job.features
        }
        classes = {actor.serves for actor in self.actors.values()} - {EVERYTHING}
        assert await redis.scard(keys.classes) == len(classes)
        assert set(await self.scores(keys.workers)) == set(self.actors)
        for name, actor in self.actors.items():
            owned = {known.job.id for known in self.owned(actor)}
            assert set(await self.scores(keys.owned(actor.id))) == owned, name

    async def check_indexes_of_jobs(self) -> None:
        redis, keys = self.redis, self.keys
        ended = {raw.decode().split()[0] for raw in await redis.zrange(keys.ended, 0, -1)}
        is_kept = {i for i, known in self.jobs.items() if not (known.is_open or known.is_erased)}
        assert ended == is_kept
        for tenant in TENANTS:
            listed = {raw.decode() for raw in await redis.zrange(keys.jobs(tenant), 0, -1)}
            of_tenant = {i: k for i, k in self.jobs.items() if k.job.tenant == tenant}
            assert listed == {i for i, known in of_tenant.items() if not known.is_erased}
        unfinished = {i: known for i, known in self.jobs.items() if known.is_open}
        followed = await redis.hgetall(keys.followers)
        assert {raw.decode() for raw in followed} == {
            i for i, known in unfinished.items() if OTHER_API in known.apis
        }
        assert set(await self.scores(keys.abandoned)) == {
            i for i, known in unfinished.items() if known.is_abandoned
        }

    def teardown(self) -> None:
        if not hasattr(self, "runner"):
            return
        try:
            self.run(self.drain())
            self.run(self.check_endings())
        finally:
            self.run(self.clean())
            self.runner.close()

    async def drain(self) -> None:
        """A reliable worker ends all remaining jobs."""
        for actor in list(self.actors.values()):
            owned = self.owned(actor)
            await self.queue.leave(actor.id)
            self.unbook(owned)
        self.actors.clear()
        last = await Actor(self.queue, self.redis, self.keys, "last", list(VERSIONS)).register()
        while claimed := await last.claim():
            for c in claimed:
                assert await last.finish(c) == FinishOutcome.OK
                self.book(c, last)
                self.jobs[c.job.id].state = JobState.DONE
        await self.record_expired()

    async def check_endings(self) -> None:
        entries = await self.redis.xrange(self.keys.replies(API))
        events = [event for _, fields in entries for event in decode_events(fields[b"e"])]
        ends = Counter(event.job for event in events if isinstance(event, End))
        retries = Counter(event.job for event in events if isinstance(event, Retry))
        assert ends == dict.fromkeys(self.jobs, 1)
        assert retries == Counter({i: k.retries for i, k in self.jobs.items() if k.retries})
        for job_id, known in self.jobs.items():
            view, result = await self.views.job_and_result(job_id)
            expected = (None, None) if known.is_erased else (known.state, known.state)
            assert (view and view.state, result and result.state) == expected
        totals = Counter(known.state for known in self.jobs.values())
        counts = await self.views.counts()
        assert counts.waiting == 0
        assert {state: n for state, n in counts.totals.items() if n} == dict(totals)

    async def clean(self) -> None:
        async for key in self.redis.scan_iter(match=f"{self.keys.prefix}*", count=1000):
            await self.redis.delete(key)
        await self.redis.aclose()

    # The model.

    def of(self, state: JobState) -> list[Known]:
        return [known for known in self.jobs.values() if known.state == state]

    def owned(self, actor: Actor) -> list[Known]:
        return [known for known in self.of(JobState.RUNNING) if known.owner == actor.id]

    def bury(self, actor: Actor) -> None:
        owned = self.owned(actor)
        self.run(actor.die())
        del self.actors[actor.id]
        for known in owned:
            if not known.is_cancelled:
                counter, number = "deaths", 2 if len(owned) == 1 else 1
                if known.is_suspect:
                    counter, number = "fails", 1
                setattr(known, counter, getattr(known, counter) + number)
                self.charged.setdefault(actor.id, []).append((known, counter, number))
        self.unbook(owned)
        self.run(self.pardon())
        self.run(self.record_expired())  # a sweep also ends overdue jobs

    def cancel_charges(self, name: str) -> None:
        for known, counter, number in self.charged.pop(name, ()):
            setattr(known, counter, getattr(known, counter) - number)

    def draw_actor(self, data: st.DataObject) -> Actor:
        return self.actors[data.draw(st.sampled_from(sorted(self.actors)))]

    def zombie(self, name: str) -> Actor:
        return Actor(self.queue, self.redis, self.keys, name, [])

    def book(self, claimed: ClaimedJob, actor: Actor) -> None:
        known = self.jobs[claimed.job.id]
        assert known.state == JobState.QUEUED
        assert not known.is_expired
        known.state, known.owner = JobState.RUNNING, actor.id
        known.tries += 1
        assert (claimed.try_, claimed.suspect) == (known.tries, known.is_suspect)

    def unbook(self, owned: list[Known]) -> None:
        for known in owned:
            known.owner = None
            if known.is_cancelled:
                known.state = JobState.CANCELLED
            elif known.fails >= 2:
                known.state = JobState.DEAD
            else:
                known.state = JobState.QUEUED
                known.retries += 1

    async def own_queue(self, actor: Actor) -> list[Known]:
        """Return the waiting jobs of this worker's adapters, in order."""
        scored = []
        for version in actor.holds:
            scored += await self.redis.zrange(self.keys.queue(version), 0, -1, withscores=True)
        scored.sort(key=lambda entry: entry[1])
        known = [self.jobs[raw.decode()] for raw, _ in scored]
        return [k for k in known if not k.is_expired and actor.serves.serves(k.needs)]

    async def record_expired(self) -> None:
        for known in self.of(JobState.QUEUED):
            if known.is_expired:
                state = await self.redis.hget(self.keys.job(known.job.id), "state")
                assert state is not None
                known.state = JobState(state.decode())

    async def scores(self, key: str) -> dict[str, float]:
        entries = await self.redis.zrange(key, 0, -1, withscores=True)
        return {raw.decode(): score for raw, score in entries}

    @staticmethod
    def check_capacity(
        owned: list[Known], claimed: list[ClaimedJob], sequences: int, max_tokens: int
    ) -> None:
        if len(claimed) == 1 and not owned and sequences > 0:
            return  # an idle worker takes one job of any size
        assert sum(c.job.sampling.n for c in claimed) <= sequences
        assert sum(c.job.cost for c in claimed) <= max_tokens

    @staticmethod
    def check_suspects(owned: list[Known], claimed: list[ClaimedJob]) -> None:
        if any(c.suspect for c in claimed):
            assert len(claimed) == 1
            assert not owned
        if any(known.is_suspect for known in owned):
            assert claimed == []

    @staticmethod
    def check_full(
        next_up: Known,
        owned: list[Known],
        claimed: list[ClaimedJob],
        sequences: int,
        max_tokens: int,
    ) -> None:
        """Check that the worker had no capacity for the jobs that it didn't claim."""
        sequences -= sum(c.job.sampling.n for c in claimed)
        max_tokens -= sum(c.job.cost for c in claimed)
        is_empty = not owned and not claimed
        fits = next_up.job.sampling.n <= sequences and next_up.job.cost <= max_tokens
        assert sequences <= 0 or not (fits or is_empty)


def serves_all_of(one: Capabilities, other: Capabilities) -> bool:
    """Return whether `one` serves every job that `other` serves."""
    return one in (EVERYTHING, other) or (one, other) == (ABLE, PLAIN)


def test_no_sequence_of_operations_loses_a_job_or_breaks_an_index(redis_url: str) -> None:
    QueueMachine.url = redis_url
    run_state_machine_as_test(QueueMachine, settings=QUICK)


costs = st.lists(st.integers(1, 100), min_size=1, max_size=12)


@settings(QUICK, max_examples=25)
@given(flood=st.lists(st.integers(1, 100), min_size=20, max_size=60), calm=costs, ran=costs)
def test_a_flood_delays_another_tenant_by_no_more_than_its_fair_share(
    redis_url: str, flood: list[int], calm: list[int], ran: list[int]
) -> None:
    """While jobs of both wait, neither tenant is ahead by more than one job of each."""

    async def claim_order() -> list[Job]:
        redis, keys = connect(redis_url), Keys(f"fair-{abs(hash((*flood, *calm, *ran)))}")
        queue = Queue(redis, keys)
        worker = await Actor(queue, redis, keys, "w", ["a@1"]).register()
        for cost in ran:
            await queue.enqueue(make_job(tenant="flood", cost=cost), LIMITS)
            await worker.claim(sequences=1)
        for tenant, tenant_costs in (("flood", flood), ("calm", calm)):
            for cost in tenant_costs:
                await queue.enqueue(make_job(tenant=tenant, cost=cost), LIMITS)
        claimed = []
        while batch := await worker.claim(sequences=1000):
            claimed += batch
        async for key in redis.scan_iter(match=f"{keys.prefix}*", count=1000):
            await redis.delete(key)
        await redis.aclose()
        return [c.job for c in claimed]

    served = Counter({"flood": 0, "calm": 0})
    left = Counter({"flood": len(flood), "calm": len(calm)})
    bound = max(flood) + max(calm) + max(ran)
    for job in asyncio.run(claim_order()):
        if all(left.values()):
            assert abs(served["flood"] - served["calm"]) <= bound
        served[job.tenant] += job.cost
        left[job.tenant] -= 1
    assert not any(left.values())
