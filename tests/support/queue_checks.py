"""Comparison of everything that a pool has in Redis with what `QueueModel` expects."""

import asyncio
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import timedelta
from typing import Any

from queue_model import DAILY_TOKENS, VERSIONS, Known, QueueModel
from queue_support import API, Actor
from redis_facts import Facts

from shared.protocol.capabilities import EVERYTHING, encode_capabilities
from shared.protocol.codec import decode_events
from shared.protocol.events import End, Event, Retry, Tokens
from shared.protocol.ids import ApiId, JobId
from shared.protocol.jobs import JobState
from shared.store.access.ledger import Ledger, Used
from shared.store.audit.auditor import Auditor
from shared.store.jobs.dead_letters import DeadLetters
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.incidents import IncidentsView
from shared.store.views.job_view import JobView, view_of_record
from shared.store.views.pool_views import PoolViews

OTHER_API = ApiId("api-2")
"""Front end that follows jobs which `API` accepted."""
TENANTS = ("t1", "t2", "t3")


class PoolChecks:
    """Checks of a pool with the live workers `actors`."""

    def __init__(self, redis: Redis, keys: Keys, model: QueueModel, key_id: str) -> None:
        self.redis, self.keys, self.model, self.key_id = redis, keys, model, key_id
        self.actors: dict[str, Actor] = {}
        self.parked: dict[str, float] = {}
        """Parked workers with their idle capacity."""

    async def check_indexes(self) -> None:
        """Check every index, as after each operation."""
        facts = Facts(self.redis)
        self.expect_jobs(facts)
        self.expect_versions(facts)
        self.expect_tenants(facts)
        self.expect_workers(facts)
        await asyncio.gather(
            facts.check(), self.check_kept(), self.check_records(), self.check_account()
        )

    def expect_jobs(self, facts: Facts) -> None:
        keys, jobs = self.keys, self.model.jobs
        unfinished = {i: known for i, known in jobs.items() if known.is_open}
        facts.ranked(keys.due, unfinished)
        followed = [i for i, known in unfinished.items() if OTHER_API in known.apis]
        facts.fields(keys.followers, followed)
        abandoned = [i for i, known in unfinished.items() if known.is_abandoned]
        facts.ranked(keys.abandoned, abandoned)
        for job_id, known in jobs.items():
            if not known.is_erased:
                facts.expires(keys.job(JobId(job_id)), not known.is_open)

    def expect_versions(self, facts: Facts) -> None:
        keys, model = self.keys, self.model
        holders = defaultdict(set)
        for actor in self.actors.values():
            for version in actor.holds:
                holders[version].add(actor.id)
        ready, held = dict[str, float](), dict[str, float]()
        for version in VERSIONS:
            scores = {known.job.id: known.score for known in model.waiting(version)}
            facts.scores(keys.queue(version), scores)
            if scores and not model.versions[version].is_doomed:
                index = held if model.versions[version].is_paused else ready
                index[version] = min(scores.values())
            facts.members(keys.holders(version), holders[version])
            unfinished = [k for k in model.jobs.values() if k.is_open and k.job.version == version]
            featured = [known.job.id for known in unfinished if known.job.features]
            facts.fields(keys.featured(version), featured)
            running = [k.job.id for k in unfinished if k.state is JobState.RUNNING]
            facts.members(keys.running(version), running)
            facts.numbers(
                keys.version(version),
                {
                    "dead_jobs": model.versions[version].dead_jobs,
                    "requests": model.versions[version].requests,
                    "tokens": model.versions[version].tokens,
                },
            )
        facts.scores(keys.ready, ready)
        facts.scores(keys.held, held)
        facts.scores(keys.cold, {v: score for v, score in ready.items() if not holders[v]})
        quarantined = [name for name, v in model.versions.items() if v.is_quarantined]
        facts.ranked(keys.quarantined, quarantined)
        facts.members(keys.doomed, [name for name, v in model.versions.items() if v.is_doomed])

    def expect_tenants(self, facts: Facts) -> None:
        keys, model = self.keys, self.model
        waiting = model.of(JobState.QUEUED)
        unfinished = [known for known in model.jobs.values() if known.is_open]
        facts.numbers(
            keys.counters,
            {
                "waiting": len(waiting),
                "bytes": sum(known.num_bytes for known in unfinished),
                "vtime": model.virtual_time[False],
                "preemptible_vtime": model.virtual_time[True],
            },
        )
        for tenant in TENANTS:
            num_waiting = sum(known.job.tenant == tenant for known in waiting)
            of_tenant = {i: k for i, k in model.jobs.items() if k.job.tenant == tenant}
            numbers = {
                "waiting": num_waiting,
                "bytes": sum(k.num_bytes for k in of_tenant.values() if k.is_open),
                "tag": model.tags.get((tenant, False), 0),
                "preemptible_tag": model.tags.get((tenant, True), 0),
            }
            facts.numbers(keys.tenant(tenant), numbers)
            if of_tenant:
                facts.expires(keys.tenant(tenant), num_waiting == 0)
            facts.ranked(keys.jobs(tenant), [i for i, k in of_tenant.items() if not k.is_erased])
        facts.ranked(keys.all_jobs, [i for i, k in model.jobs.items() if not k.is_erased])
        facts.fields(keys.wide, [k.job.id for k in unfinished if k.job.num_sequences > 1])

    def expect_workers(self, facts: Facts) -> None:
        keys = self.keys
        classes = {actor.serves for actor in self.actors.values()} - {EVERYTHING}
        facts.members(keys.classes, map(encode_capabilities, classes))
        facts.ranked(keys.workers, self.actors)
        for key in (keys.missing, keys.lost):
            facts.ranked(key, ())
        parked = defaultdict[str, dict[str, float]](dict)
        capacity = defaultdict[str, list[str]](list)
        for actor in self.actors.values():
            owned = self.model.owned(actor.id)
            facts.scores(keys.owned(actor.id), {known.job.id: known.epoch for known in owned})
            facts.members(keys.residents(actor.id), actor.holds)
            facts.members(keys.cancelled(actor.id), self.model.cancelled(actor.id))
            if actor.id in self.parked:
                parked[actor.idle_key][actor.id] = self.parked[actor.id]
            capacity[actor.capacity_key].append(actor.id)
        for key in {keys.idle, *(actor.idle_key for actor in self.actors.values())}:
            facts.scores(key, parked[key])
        for key in {keys.capacity, *capacity}:
            facts.ranked(key, capacity[key])

    async def check_kept(self) -> None:
        """Check the index of ended jobs, and the sums of the bytes that are kept of them."""
        pipe = self.redis.pipeline(transaction=False)
        pipe.zrange(self.keys.ended, 0, -1)
        pipe.zrange(self.keys.kept, 0, -1, withscores=True)
        pipe.hget(self.keys.counters, "kept")
        members, kept, total = await pipe.execute()
        entries = [raw.decode().split() for raw in members]
        jobs = self.model.jobs.items()
        assert {job_id for job_id, _, _ in entries} == {
            job_id for job_id, known in jobs if not known.is_open and not known.is_erased
        }
        of_tenants: Counter[str] = Counter()
        for _, num_bytes, tenant in entries:
            of_tenants[tenant] += int(num_bytes)
        assert {raw.decode(): score for raw, score in kept} == of_tenants
        assert int(total or 0) == of_tenants.total()

    async def check_records(self) -> None:
        """Check the indexes of records, and the sums of their bytes."""
        keys, pipe = self.keys, self.redis.pipeline(transaction=False)
        pipe.zrange(keys.unanswered, 0, -1, withscores=True)
        pipe.zrange(keys.unanswered_bytes, 0, -1, withscores=True)
        pipe.hget(keys.counters, "unanswered")
        for tenant in TENANTS:
            pipe.zrange(keys.unanswered_of(tenant), 0, -1, withscores=True)
        members, by_tenant, total, *of_tenants = await pipe.execute()
        entries = [raw.decode().split("\t") for raw, _ in members]
        expected = [
            known
            for known in self.model.jobs.values()
            if not known.is_open and not known.is_erased and known.state is not JobState.DONE
        ]
        assert {tuple(entry[:5]) for entry in entries} == {
            (k.job.id, k.state, k.job.model, k.job.version, k.error or "") for k in expected
        }
        num_bytes: Counter[str] = Counter()
        for *_, size, tenant in entries:
            num_bytes[tenant] += int(size)
        assert {raw.decode(): score for raw, score in by_tenant} == num_bytes
        assert int(total or 0) == num_bytes.total()
        assert sorted(members) == sorted(each for some in of_tenants for each in some)

    async def check_account(self) -> None:
        """Check the tokens that the API key's day counts as used and as reserved."""
        rate = self.keys.rate(self.key_id)
        raw = await self.redis.hmget(rate, ["day", "day_tokens", "reserved"])
        day, used, reserved = (int(each or 0) for each in raw)
        passed = (await self.redis.time())[0] // 86_400 - day if day else 0
        account = self.model.account
        assert max(0, used - DAILY_TOKENS * passed) == account.tokens
        assert reserved == account.reserved

    async def check_end(self) -> None:
        """Check what is left of a run whose jobs have all ended and whose workers have left."""
        await self.check_events()
        await self.check_answers()
        await self.check_totals()
        await self.check_workers_are_forgotten()
        await self.check_owners()

    async def check_owners(self) -> None:
        """Check that every key has an owner or a lifetime."""
        assert (await Auditor(self.redis, self.keys).audit(settle_s=0)).strays == ()

    async def check_events(self) -> None:
        """Check that each job has ended once, after its tokens and retries."""
        for api in (API, OTHER_API):
            entries = await self.redis.xrange(self.keys.replies(api))
            published = defaultdict(list)
            for event in (e for _, fields in entries for e in decode_events(fields[b"e"])):
                published[event.job].append(summary(event))
            for job_id, known in self.model.jobs.items():
                assert published[JobId(job_id)] == known.events[api], api
                ends = [event for event in known.events[api] if event[0] == "end"]
                assert len(ends) == 1 or api is OTHER_API

    async def check_answers(self) -> None:
        views, letters = PoolViews(self.redis, self.keys), DeadLetters(self.redis, self.keys)
        died = [job for kind, job in self.model.incidents if kind == "job_dead"]
        dead = [job for job in died[::-1] if not self.model.jobs[job].is_erased]
        assert [letter.id for letter in await letters.dead(1000)] == dead
        for job_id, known in self.model.jobs.items():
            view, result = await views.job_and_result(JobId(job_id))
            if known.is_erased:
                assert (view, result) == (None, None)
                continue
            assert view
            assert result
            assert view.state == result.state == known.state
            assert view.error == result.error
            assert (view.error and view.error.code) == known.error
            moments = [(m.event.value, m.worker, m.reason) for m in view.timeline.moments]
            assert moments == known.timeline
            await self.check_record(known, view)
            assert (view.usage.prompt_tokens if view.usage else 0) == known.used
            is_dead, checkpoints = known.state is JobState.DEAD, self.keys.checkpoints(known.job.id)
            assert known.state is not JobState.DONE or not await self.redis.exists(checkpoints)
            kept = await letters.find(JobId(job_id))
            assert (kept.job if kept else None) == (known.job if known.may_retry else None)
            assert kept is None or kept.is_dead == is_dead

    async def check_record(self, known: Known, view: JobView) -> None:
        """Check that exactly the jobs without an answer have a record, with the same data."""
        raw = await self.redis.get(self.keys.record(known.job.id))
        assert (raw is None) == (known.state is JobState.DONE)
        if raw is not None:
            record = view_of_record(raw)
            assert replace(record, spec=view.spec) == view

    async def check_totals(self) -> None:
        counts, model = await PoolViews(self.redis, self.keys).counts(), self.model
        found = {**counts.totals, "retried": counts.retried, "released": counts.released}
        found["workers_lost"] = counts.workers_lost
        assert {name: number for name, number in found.items() if number} == model.counts
        newest = await IncidentsView(self.redis, self.keys).newest(200)
        incidents = [
            (i.kind, i.job or i.worker or i.version or i.process) for i in reversed(newest)
        ]
        assert incidents == model.incidents[-len(newest) :]
        used: dict[tuple[str, str], Used] = defaultdict(Used)
        for known in model.jobs.values():
            used[known.job.tenant, known.job.model] += Used(1, known.used)
        assert await self.read_ledger() == used

    async def check_workers_are_forgotten(self) -> None:
        """Check that nothing is left of workers but the charges of the dead ones."""
        workers = {name for kind, name in self.model.incidents if kind == "worker_joined"}
        async for raw in self.redis.scan_iter(match=f"{self.keys.prefix}*", count=1000):
            kind, _, name = raw.decode().removeprefix(self.keys.prefix).partition(":")
            assert name not in workers or kind == "charged"

    async def read_ledger(self) -> dict[tuple[str, str], Used]:
        """Return the sums of today and yesterday by tenant and model."""
        ledger, sums = Ledger(self.redis, self.keys), defaultdict[tuple[str, str], Used](Used)
        today = await ledger.today()
        for day in (today - timedelta(days=1), today):
            for entry in await ledger.entries(day, await ledger.tenants(day)):
                sums[entry.tenant, entry.model] += entry.used
        return sums


def summary(event: Event) -> tuple[Any, ...]:
    """Return an event in the form of `Known.events`."""
    match event:
        case Tokens():
            return "tokens", event.try_, *event.ids
        case Retry():
            return "retry", event.try_
        case End():
            return "end", event.try_, event.state, event.error.code if event.error else None
    raise AssertionError(f"unexpected event {event!r}")
