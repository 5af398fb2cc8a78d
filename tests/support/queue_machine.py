"""Random or scripted operations of clients and workers on a queue, compared with `QueueModel`."""

import asyncio
import time
import uuid
from bisect import bisect_left, bisect_right
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import pytest
from claim_model import ClaimModel, Room
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from key_support import new_key
from queue_checks import OTHER_API, TENANTS, PoolChecks
from queue_model import DAILY_TOKENS, DORA, VERSIONS, Known, QueueModel, kinds_of
from queue_support import API, LIMITS, NEVER_MS, Actor, make_adapter, make_job, tokens

from shared.errors import ErrorCode, JobFailed, LeaseLost, QueueFull, RateLimited
from shared.protocol.capabilities import EVERYTHING, AdapterKind, Capabilities
from shared.protocol.embeddings import EmbeddingParams
from shared.protocol.enqueue import EnqueueOptions, IdempotencyKey, QueueLimits
from shared.protocol.ids import ApiId
from shared.protocol.jobs import ClaimedJob, JobState
from shared.protocol.queue_replies import FinishOutcome, ReplicaStanding
from shared.protocol.timeline import JobEvent
from shared.protocol.workers import WorkerMode
from shared.store.access.key_store import KeyStore
from shared.store.adapters.adapter_pauses import AdapterPauses
from shared.store.adapters.registry import Registry
from shared.store.adapters.residency import ResidencyStore
from shared.store.jobs.pauses import Pauses
from shared.store.jobs.queue import Queue
from shared.store.jobs.token_streams import recover
from shared.store.jobs.worker_modes import ModeOutcome, WorkerModes
from shared.store.redis.connection import connect
from shared.store.redis.keys import Keys

T = TypeVar("T")
STALL_MS = 100_000
"""Gap between sweeps that counts as a stall: more than half of the actors' leases."""
API_DEAD_MS = 60_000
RESERVED_MS = 5000
PLAIN = Capabilities(kinds=frozenset(), features=frozenset(), max_rank=8)
ABLE = Capabilities(kinds=frozenset({AdapterKind.DORA}), features=frozenset(), max_rank=None)
ROOMY = replace(LIMITS, retain_ms=3_600_000)
TIGHT = replace(ROOMY, max_waiting=6, max_waiting_adapter=4, max_waiting_tenant=3)
picks = st.integers(0, 40)
"""Which of the present jobs, workers or claims an operation is for."""
apis = st.sampled_from((API, OTHER_API))
seldom = st.sampled_from((False, False, False, True))
a_request = st.fixed_dictionaries(
    {
        "version": st.sampled_from(VERSIONS),
        "tenant": st.sampled_from(TENANTS),
        "priority": st.sampled_from((0, 0, -1, 1)),
        "cost": st.integers(1, 50),
        "n": st.sampled_from((1, 1, 2, 5)),
        "embedding": st.sampled_from((None, None, None, EmbeddingParams())),
        "is_preemptible": seldom,
        "is_expired": seldom,
        "weight": st.sampled_from((1.0, 1.0, 4.0)),
        "key": st.sampled_from(("", "", "", "k 1", "k 2")),
        "keeps_running": seldom,
        "is_limited": seldom,
    }
)


class QueueMachine(RuleBasedStateMachine):
    """No sequence of operations loses a job, ends one twice or makes an index inconsistent."""

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.keys = Keys(f"property-{uuid.uuid4().hex[:12]}")
        self.redis = self.run(self.make_client())
        self.residency = ResidencyStore(self.redis, self.keys)
        self.queue = Queue(self.redis, self.keys, residency=self.residency)
        self.registry = Registry(self.redis, self.keys)
        self.pauses, self.is_paused = Pauses(self.redis, self.keys), False
        self.adapter_pauses = AdapterPauses(self.redis, self.keys)
        self.modes = WorkerModes(self.redis, self.keys)
        self.modes_of: dict[str, WorkerMode] = {}
        store = KeyStore(self.redis, self.keys)
        _, self.key_id = self.run(new_key(store, tokens_per_day=DAILY_TOKENS))
        self.model = QueueModel()
        self.checks = PoolChecks(self.redis, self.keys, self.model, self.key_id)
        self.actors = self.checks.actors
        self.claims: list[tuple[str, ClaimedJob]] = []
        self.num_actors = self.num_tokens = 0
        self.run(self.register_adapters())
        for api in (API, OTHER_API):
            self.revive(api)

    async def make_client(self) -> Any:
        return connect(self.url)

    async def register_adapters(self) -> None:
        for version in VERSIONS:
            await self.registry.add_adapter(make_adapter(version, kinds=kinds_of(version)))

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    # Operations of clients.

    @rule(
        requests=st.lists(a_request, min_size=1, max_size=6),
        limits=st.sampled_from((ROOMY, ROOMY, TIGHT)),
    )
    def enqueue(self, requests: list[dict[str, Any]], limits: QueueLimits = ROOMY) -> None:
        for request in requests:
            self.send(request, limits)

    @precondition(lambda self: self.model.jobs)
    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        known = self.job(pick)
        self.model.cancel(known)
        assert self.run(self.queue.cancel(known.job.id)) == visible_state(known)

    @precondition(lambda self: self.model.jobs)
    @rule(pick=picks, api=apis)
    def attach(self, pick: int, api: ApiId) -> None:
        known = self.job(pick)
        self.run(self.queue.attach(known.job.id, api))
        self.model.attach(known, api)

    @precondition(lambda self: self.model.jobs)
    @rule(pick=picks, api=apis, grace_ms=st.sampled_from((0, NEVER_MS)))
    def abandon(self, pick: int, api: ApiId, grace_ms: int) -> None:
        known = self.job(pick)
        self.run(self.queue.abandon(known.job.id, api, grace_ms=grace_ms))
        self.model.abandon(known, api, at_once=grace_ms == 0)

    @rule()
    def let_grace_pass(self) -> None:
        for known in [known for known in self.model.jobs.values() if known.is_abandoned]:
            self.run(self.redis.zincrby(self.keys.abandoned, -2 * NEVER_MS, known.job.id))
            if not (known.state is JobState.QUEUED and known.is_expired):  # that ends first
                self.model.cancel_abandoned(known)
        self.sweep()

    @rule(api=apis)
    def fall_silent(self, api: ApiId) -> None:
        """A front end dies."""
        self.run(self.redis.zincrby(self.keys.apis, -API_DEAD_MS - STALL_MS, api))
        if api in self.model.reporting:
            long_ago = -API_DEAD_MS - STALL_MS
            self.run(self.redis.zincrby(self.keys.processes, long_ago, f"front_end {api}"))
        self.model.living.discard(api)

    @rule(api=apis)
    def revive(self, api: ApiId) -> None:
        assert self.run(self.queue.beat_api(api)) == (api not in self.model.living)
        self.model.revive(api)

    @precondition(lambda self: self.model.jobs)
    @rule(pick=picks)
    def erase(self, pick: int) -> None:
        known = self.job(pick)
        assert self.run(self.queue.erase(known.job.id)) == visible_state(known)
        known.is_erased = not known.is_open

    # Operations of workers.

    @precondition(lambda self: len(self.actors) < 3)
    @rule(
        holds=st.sets(st.sampled_from(VERSIONS)),
        serves=st.sampled_from((EVERYTHING, EVERYTHING, PLAIN, ABLE)),
    )
    def start(self, holds: set[str] | None = None, serves: Capabilities = EVERYTHING) -> None:
        self.num_actors += 1
        name = f"w{self.num_actors}"
        held = served_by(serves, set(VERSIONS) if holds is None else holds)
        actor = Actor(self.queue, self.redis, self.keys, name, held, serves)
        self.actors[name] = self.run(actor.register())
        self.model.incidents.append(("worker_joined", name))

    @precondition(lambda self: self.actors)
    @rule(
        pick=picks,
        sequences=st.sampled_from((0, 1, 3, 8)),
        most=st.sampled_from((0, 30, 100, 1000)),
        idle=st.sampled_from((None, None, 0, 2)),
        max_cold=st.sampled_from((0, 0, 1, 2)),
        steal_ms=st.sampled_from((-1, NEVER_MS, NEVER_MS)),
        load_ms=st.sampled_from((-1, NEVER_MS)),
    )
    def claim(
        self,
        pick: int = 0,
        sequences: int = 8,
        most: int = 1000,
        *,
        idle: int | None = None,
        **limits: Any,
    ) -> None:
        """Claim exactly the jobs that the model takes."""
        limits = {"max_cold": 0, "steal_ms": NEVER_MS, "load_ms": NEVER_MS, **limits}
        actor = self.actor(pick)
        model = ClaimModel(
            model=self.model,
            actor=actor,
            others=[other for other in self.actors.values() if other is not actor],
            budget=Room(sequences, most),
            idle=Room(sequences if idle is None else idle, most),
            reserved=self.run(self.reserved_by_others(actor)),
            loading=self.run(self.loading()),
            is_paused=self.is_paused or bool(self.modes_of.get(actor.id)),
            **limits,
        )
        call = actor.try_claim(sequences=sequences, tokens=most, idle_sequences=idle, **limits)
        claim = self.run(call)
        model.play()
        expected = [known.job.id for known in model.taken]
        assert [claimed.job.id for claimed in claim.jobs] == expected
        assert claim.is_parked == model.is_parked
        assert claim.next_steal_ms is None or limits["max_cold"] > 0
        self.park(actor, model)
        for claimed in claim.jobs:
            self.book(claimed, actor)

    @precondition(lambda self: self.claims)
    @rule(
        pick=picks,
        is_stored=st.booleans(),
        spends=st.sampled_from((1, 1, 60)),
        is_of_another_claim=seldom,
    )
    def publish(
        self,
        pick: int,
        *,
        is_stored: bool = False,
        spends: int = 1,
        is_of_another_claim: bool = False,
    ) -> None:
        """Publish a token. Only the owner of the claim that Redis knows can write."""
        name, claimed, known = self.a_claim(pick)
        epoch = 1 if is_of_another_claim else claimed.claim_epoch
        self.num_tokens += 1
        ids = [*known.ids, self.num_tokens]
        piece = tokens(known.job, len(ids) - 1, ids[-1:], f"{ids[-1]} ", try_=claimed.try_)
        stored = tokens(known.job, 0, ids, "".join(f"{id_} " for id_ in ids), try_=claimed.try_)
        call = self.queue.publish(
            *(self.zombie(name).id, {API: [piece]}, [stored] if is_stored else []),
            claim_epochs={known.job.id: epoch},
            used={known.job.id: known.spent + spends},
            moments=[(known.job.id, JobEvent.FIRST_TOKEN)],
        )
        if name not in self.actors:
            self.refuse(name, call)
            return
        standing = self.run(call)
        is_owner = known.is_run_by(name, epoch)
        assert standing.fenced == (frozenset() if is_owner else {known.job.id})
        assert standing.cancelled == self.model.cancelled(name)
        if is_owner:
            known.spent += spends
            spent = known.spent if is_stored else None
            self.model.publish(known, claimed.try_, self.num_tokens, spent=spent)

    @precondition(lambda self: self.claims)
    @rule(
        pick=picks,
        used=st.integers(0, 100),
        state=st.sampled_from((JobState.DONE, JobState.DONE, JobState.CANCELLED)),
    )
    def finish(self, pick: int, used: int = 10, state: JobState = JobState.DONE) -> None:
        name, claimed, known = self.a_claim(pick)
        expected = self.model.outcome(known, name, claimed.try_, claimed.claim_epoch)
        assert self.run(self.zombie(name).finish(claimed, state, used=used)) == expected
        if expected is FinishOutcome.OK:
            self.model.finish(known, state, used=used)

    @precondition(lambda self: self.claims)
    @rule(
        pick=picks,
        code=st.sampled_from((ErrorCode.INTERNAL, ErrorCode.INVALID_VALUE, ErrorCode.UNAVAILABLE)),
    )
    def fail(self, pick: int, code: ErrorCode) -> None:
        name, claimed, known = self.a_claim(pick)
        expected = self.model.outcome(known, name, claimed.try_, claimed.claim_epoch)
        assert self.run(self.zombie(name).fail(claimed, code)) == expected
        if expected is FinishOutcome.OK:
            self.model.finish(known, JobState.FAILED, used=None, error=code)

    @precondition(lambda self: self.actors)
    @rule(pick=picks, keep=st.integers(0, 1))
    def release(self, pick: int = 0, keep: int = 0) -> None:
        actor = self.actor(pick)
        owned = self.model.owned(actor.id)[keep:]
        ids = [known.job.id for known in owned]
        assert self.run(self.queue.release(actor.id, ids)) == len(ids)
        self.model.release(owned)
        self.wake(owned)

    @precondition(lambda self: self.actors)
    @rule(pick=picks, keep=st.integers(0, 1))
    def lose_replies_and_reconcile(self, pick: int = 0, keep: int = 0) -> None:
        actor = self.actor(pick)
        owned = self.model.owned(actor.id)
        known, lost = [known.job.id for known in owned[:keep]], owned[keep:]
        assert self.run(self.queue.reconcile(actor.id, known, grace_ms=NEVER_MS)) == 0
        assert self.run(self.queue.reconcile(actor.id, known, grace_ms=0)) == len(lost)
        self.model.release(lost)
        self.wake(lost)

    @precondition(lambda self: self.actors)
    @rule(pick=picks)
    def beat(self, pick: int) -> None:
        actor = self.actor(pick)
        epochs = {c.job.id: c.claim_epoch for name, c in self.claims if name == actor.id}
        call = self.queue.beat(actor.id, lease_ms=60_000, info=actor.info, known=epochs)
        standing = self.run(call)
        assert standing.booked == len(self.model.owned(actor.id))
        assert standing.mode == self.modes_of.get(actor.id, WorkerMode.SERVING)
        assert standing.cancelled == self.model.cancelled(actor.id)
        assert standing.fenced == {
            job_id
            for job_id, epoch in epochs.items()
            if not self.model.jobs[job_id].is_run_by(actor.id, epoch)
        }

    @precondition(lambda self: self.actors)
    @rule(pick=picks, holds=st.sets(st.sampled_from(VERSIONS)))
    def load_and_drop(self, pick: int, holds: set[str]) -> None:
        actor = self.actor(pick)
        held = served_by(actor.serves, holds)
        drop = sorted(set(actor.holds) - set(held))
        self.run(self.residency.set_residents(actor.id, add=held, remove=drop))
        actor.holds = held

    @precondition(lambda self: sum(bool(actor.holds) for actor in self.actors.values()) > 1)
    @rule(pick=picks, steal_ms=st.sampled_from((0, NEVER_MS)))
    def shrink(self, pick: int, steal_ms: int) -> None:
        copies = [(actor, version) for actor in self.actors.values() for version in actor.holds]
        actor, version = copies[pick % len(copies)]
        call = self.residency.shrink(actor.id, {version: 0}, due=[version], steal_ms=steal_ms)
        copy = self.run(call)[version]
        holders = [a for a in self.actors.values() if a is not actor and version in a.holds]
        others = [a for a in holders if serves_all_of(a.serves, actor.serves)]
        assert (copy is ReplicaStanding.SOLE) == (not others)
        if copy is ReplicaStanding.GONE:
            actor.holds = [held for held in actor.holds if held != version]

    @precondition(lambda self: self.actors)
    @rule(pick=picks)
    def leave(self, pick: int = 0) -> None:
        actor = self.actor(pick)
        owned = self.model.owned(actor.id)
        self.run(self.queue.leave(actor.id))
        self.forget(actor)
        self.model.incidents.append(("worker_left", actor.id))
        self.model.release(owned, "worker_left")
        self.wake(owned)

    @precondition(lambda self: self.actors)
    @rule(pick=picks)
    def die(self, pick: int = 0) -> None:
        actor = self.actor(pick)
        owned = self.model.owned(actor.id)
        self.model.sweep()
        self.run(actor.die())
        self.forget(actor)
        self.model.bury(actor.id)
        self.wake(owned)
        self.after_sweep()

    @precondition(lambda self: self.model.silent)
    @rule(pick=picks)
    def speak_again(self, pick: int = -1) -> None:
        """A worker that was given up proves alive, which cancels the charges of its jobs."""
        name = self.model.silent[pick % len(self.model.silent)]
        self.refuse(name, self.zombie(name).claim())

    # Time, and operators.

    @rule()
    def sweep(self) -> None:
        assert self.run(self.queue.reap()).workers == 0
        self.after_sweep()

    @rule()
    def stall(self) -> None:
        """Redis stalls for longer than a lease. No worker is given up."""
        self.sweep()
        self.run(self.shift_back())
        for actor in self.actors.values():
            self.run(self.redis.zadd(self.keys.workers, {actor.id: 1}))
        for _ in range(2):
            self.sweep()
        for actor in self.actors.values():
            self.run(self.queue.beat(actor.id, lease_ms=60_000, info=actor.info))

    @rule(is_paused=seldom)
    def pause_or_continue(self, *, is_paused: bool) -> None:
        self.run((self.pauses.begin if is_paused else self.pauses.end)(by="red"))
        self.is_paused = is_paused

    @rule(version=st.sampled_from(VERSIONS), is_paused=st.booleans())
    def pause_or_resume_adapter(self, version: str, *, is_paused: bool) -> None:
        name = version.partition("@")[0]
        assert self.run(self.adapter_pauses.set(name, is_paused=is_paused, by="red"))
        self.model.versions[version].is_paused = is_paused
        self.checks.parked = self.run(self.read_parked())

    @precondition(lambda self: self.actors)
    @rule(pick=picks, mode=st.sampled_from(WorkerMode))
    def set_mode(self, pick: int, mode: WorkerMode) -> None:
        actor = self.actor(pick)
        assert self.run(self.modes.set(actor.id, mode, by="red")) is ModeOutcome.OK
        self.modes_of[actor.id] = mode
        if mode is not WorkerMode.SERVING:
            self.checks.parked.pop(actor.id, None)

    @precondition(lambda self: any(k.options.key_id for k in self.model.jobs.values()))
    @rule()
    def begin_another_day(self) -> None:
        """Pretend that the day that the limit of the API key counts was an earlier one."""
        self.run(self.redis.hincrby(self.keys.rate(self.key_id), "day", -1))
        self.model.account.turn()

    @precondition(lambda self: self.model.of(JobState.RUNNING))
    @rule(pick=picks)
    def overrun(self, pick: int) -> None:
        """A worker doesn't end its job at the deadline."""
        running = self.model.of(JobState.RUNNING)
        known = running[pick % len(running)]
        self.run(self.redis.hincrby(self.keys.job(known.job.id), "deadline", -2 * NEVER_MS))
        self.run(self.redis.zincrby(self.keys.due, -2 * NEVER_MS, known.job.id))
        self.model.overrun(known)
        self.sweep()

    @precondition(lambda self: any(v.is_quarantined for v in self.model.versions.values()))
    @rule()
    def release_quarantine(self) -> None:
        for name, version in self.model.versions.items():
            if version.is_quarantined:
                assert (
                    self.run(self.registry.release_adapter(name.partition("@")[0], by="tester"))
                    == name
                )
                self.model.release_quarantine(name)

    @rule(times=st.integers(2, 4), version=st.sampled_from(VERSIONS))
    def crash_again_and_again(self, times: int, version: str) -> None:
        """A worker dies of each job of a version that it claims."""
        for _ in range(times):
            self.start({version})
            self.claim(-1, sequences=1)
            self.die(-1)

    async def shift_back(self) -> None:
        """Move all times in Redis into the past by the length of the stall."""
        await self.redis.hincrby(self.keys.counters, "swept", -STALL_MS)
        for api in (API, OTHER_API):
            await self.redis.zincrby(self.keys.apis, -STALL_MS, api)
            if api in self.model.reporting:
                process = f"front_end {api}"
                await self.redis.zincrby(self.keys.processes, -STALL_MS, process)
        for known in self.model.jobs.values():
            if known.is_open:
                await self.redis.hincrby(self.keys.job(known.job.id), "enq", -STALL_MS)
                await self.redis.hincrby(self.keys.job(known.job.id), "deadline", -STALL_MS)
                await self.redis.zincrby(self.keys.due, -STALL_MS, known.job.id)

    # Parts of the operations.

    def job(self, pick: int) -> Known:
        jobs = list(self.model.jobs.values())
        return jobs[pick % len(jobs)]

    def actor(self, pick: int) -> Actor:
        actors = list(self.actors.values())
        return actors[pick % len(actors)]

    def a_claim(self, pick: int) -> tuple[str, ClaimedJob, Known]:
        name, claimed = self.claims[pick % len(self.claims)]
        return name, claimed, self.model.jobs[claimed.job.id]

    def zombie(self, name: str) -> Actor:
        return Actor(self.queue, self.redis, self.keys, name, [])

    def forget(self, actor: Actor) -> None:
        del self.actors[actor.id]
        self.modes_of.pop(actor.id, None)
        self.checks.parked.pop(actor.id, None)

    def refuse(self, name: str, call: Coroutine[Any, Any, Any]) -> None:
        """Make a call of a worker that isn't in the pool."""
        with pytest.raises(LeaseLost):
            self.run(call)
        self.model.pardon(name)

    def send(self, request: dict[str, Any], limits: QueueLimits) -> None:
        fields = dict(request)
        key, _, digest = fields.pop("key", "").partition(" ")
        options = EnqueueOptions(
            idempotency=IdempotencyKey(key=key, body_digest=digest) if key else None,
            weight=fields.pop("weight", 1.0),
            keeps_running=fields.pop("keeps_running", False),
            key_id=self.key_id if fields.pop("is_limited", False) else "",
        )
        is_expired = fields.pop("is_expired", False)
        fields = {"tenant": TENANTS[0], "deadline_ms": 0 if is_expired else NEVER_MS, **fields}
        known = Known(make_job(**fields), options, is_expired)
        call = self.queue.enqueue(known.job, limits, options=options)
        if self.is_refused(known, limits, call):
            return
        earlier = self.model.earlier(known)
        enqueued = self.run(call)
        if earlier:
            assert (enqueued.id, enqueued.is_new) == (earlier.job.id, False)
            earlier.is_abandoned = False
            return
        self.model.enqueue(known)
        assert (enqueued.id, enqueued.is_new) == (known.job.id, True)
        scores = [other.score for other in self.model.waiting(known.job.version)]
        assert bisect_left(scores, known.score) < enqueued.position
        assert enqueued.position <= bisect_right(scores, known.score)
        stored = self.run(self.redis.hget(self.keys.job(known.job.id), "bytes"))
        known.num_bytes = int(stored)
        self.wake([known])

    def is_refused(self, known: Known, limits: QueueLimits, call: Coroutine[Any, Any, Any]) -> bool:
        """Return whether the request is to be refused. If so, make the call."""
        earlier, job = self.model.earlier(known), known.job
        served = [actor.serves.serves(known.needs) for actor in self.actors.values()]
        reached = self.model.reached_limit(job, limits)
        if earlier:
            if earlier.options.idempotency == known.options.idempotency:
                return False
            message = "different body"
        elif self.model.versions[job.version].is_quarantined:
            message = "quarantined"
        elif served and not any(served):
            message = "no live worker"
        elif reached:
            with pytest.raises(QueueFull) as full:
                self.run(call)
            assert (full.value.limit, full.value.num_waiting) == reached
            return True
        elif known.options.key_id and not self.model.account.fits(job.cost):
            with pytest.raises(RateLimited):
                self.run(call)
            return True
        else:
            return False
        with pytest.raises(JobFailed, match=message):
            self.run(call)
        return True

    async def reserved_by_others(self, actor: Actor) -> set[str]:
        """Return the jobs for which other workers drain. Reservations that soon end, end now."""
        waiting = [self.keys.job(known.job.id) for known in self.model.of(JobState.QUEUED)]
        pipe = self.redis.pipeline(transaction=False)
        for key in waiting:
            pipe.hget(key, "reserved")
        found = set()
        for key, raw in zip(waiting, await pipe.execute(), strict=True):
            worker, _, ms = (raw or b"").decode().partition(" ")
            if ms and abs(time.time() * 1000 - int(ms)) > RESERVED_MS / 2:
                await self.redis.hdel(key, "reserved")
            elif worker in self.actors and worker != actor.id:
                found.add(key.rpartition(":")[2])
        return found

    async def loading(self) -> dict[str, str]:
        raw = await self.redis.mget([self.keys.loading(version) for version in VERSIONS])
        return {v: worker.decode() for v, worker in zip(VERSIONS, raw, strict=True) if worker}

    def park(self, actor: Actor, claim: ClaimModel) -> None:
        self.checks.parked.pop(actor.id, None)
        if claim.is_parked:
            places = claim.budget.sequences
            score = max(0, claim.idle.sequences) + places / (places + 1)
            self.checks.parked[actor.id] = score

    def book(self, claimed: ClaimedJob, actor: Actor) -> None:
        known = self.model.jobs[claimed.job.id]
        assert known.state is JobState.QUEUED
        assert not known.is_expired
        self.model.start(known, actor.id, claimed.claim_epoch)
        self.claims.append((actor.id, claimed))
        assert (claimed.try_, claimed.suspect) == (known.tries, known.is_suspect)
        assert claimed.token_limit == (DAILY_TOKENS if known.options.key_id else None)
        have = self.run(recover(self.redis, self.keys, claimed))
        assert [list(piece.ids) for piece in have] == ([known.ids] if known.ids else [])
        assert [piece.text for piece in have] == ["".join(f"{i} " for i in known.ids)][: len(have)]

    def after_sweep(self) -> None:
        self.model.sweep()
        self.run(self.record_abandoned())

    async def record_abandoned(self) -> None:
        """Record the running jobs of dead front ends that the sweep has found."""
        for raw in await self.redis.zrange(self.keys.abandoned, 0, -1):
            known = self.model.jobs[raw.decode()]
            if not known.is_abandoned:
                assert known.is_open
                assert self.model.may_abandon(known)
                known.is_abandoned = True

    def wake(self, jobs: Sequence[Known]) -> None:
        """Check that each job that came into its queue has woken one worker that serves it."""
        waiting = [known for known in jobs if known.state is JobState.QUEUED]
        parked = self.run(self.read_parked())
        woken = self.checks.parked.keys() - parked.keys()
        assert sum(bool(self.best_of(parked, known)) for known in waiting) <= len(woken)
        assert len(woken) <= len(waiting)
        if len(waiting) == 1:
            assert woken <= self.best_of(self.checks.parked, waiting[0])
        self.checks.parked = parked

    def best_of(self, parked: dict[str, float], known: Known) -> set[str]:
        """Return the parked workers that serve a job: holders first, then by free capacity."""
        able = {name for name in parked if self.actors[name].serves.serves(known.needs)}
        holders = {name for name in able if known.job.version in self.actors[name].holds}
        best = max((parked[name] for name in holders or able), default=0)
        return {name for name in holders or able if parked[name] == best}

    async def read_parked(self) -> dict[str, float]:
        parked: dict[str, float] = {}
        for key in {actor.idle_key for actor in self.actors.values()}:
            parked |= {
                name.decode(): score
                for name, score in await self.redis.zrange(key, 0, -1, withscores=True)
            }
        return parked

    @invariant()
    def every_index_is_true(self) -> None:
        self.run(self.checks.check_indexes())

    # The end of a run.

    def teardown(self) -> None:
        try:
            self.drain()
            self.every_index_is_true()
            self.run(self.checks.check_end())
        finally:
            self.run(self.clean())
            self.runner.close()

    def drain(self) -> None:
        """A reliable worker ends all remaining jobs."""
        self.pause_or_continue(is_paused=False)
        for version in VERSIONS:
            self.pause_or_resume_adapter(version, is_paused=False)
        while self.actors:
            self.leave()
        self.sweep()
        self.start()
        while self.model.of(JobState.QUEUED):
            num_claims = len(self.claims)
            self.claim(sequences=50, most=10**6)
            assert len(self.claims) > num_claims
            for number in range(num_claims, len(self.claims)):
                self.finish(number)
        self.leave()

    async def clean(self) -> None:
        async for key in self.redis.scan_iter(match=f"{self.keys.prefix}*", count=1000):
            await self.redis.delete(key)
        await self.redis.aclose()


def visible_state(known: Known) -> JobState | None:
    return None if known.is_erased else known.state


def served_by(serves: Capabilities, versions: set[str]) -> list[str]:
    """Return those of the versions that a worker can load."""
    return sorted(versions - {DORA} if serves is PLAIN else versions)


def serves_all_of(one: Capabilities, other: Capabilities) -> bool:
    """Return whether `one` serves every job that `other` serves."""
    return one in (EVERYTHING, other) or (one, other) == (ABLE, PLAIN)
