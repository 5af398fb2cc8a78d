"""The ledger equals the sum of the usage that clients see, however jobs end."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from queue_support import LIMITS, Actor, make_adapter, make_job

from shared.errors import ErrorCode, LeaseLost
from shared.protocol.jobs import ClaimedJob, Job, JobState
from shared.protocol.results import Usage
from shared.store.access.ledger import Ledger, Used
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis, chunks
from shared.store.redis.keys import Keys
from shared.store.views.job_view import JobView
from shared.store.views.pool_views import PoolViews

DAY_MS = 86_400_000
BATCH = 20
LONG = replace(
    LIMITS,
    max_waiting=100_000,
    max_waiting_adapter=100_000,
    max_waiting_tenant=100_000,
    retain_ms=600_000,
)
VERSIONS = ("a@1", "b@1", "c@1")


@pytest.fixture
def ledger(redis: Redis, keys: Keys) -> Ledger:
    return Ledger(redis, keys)


async def total(ledger: Ledger) -> dict[tuple[str, str], Used]:
    """Return the sums of today and yesterday by tenant and model."""
    sums: dict[tuple[str, str], Used] = {}
    today = await ledger.today()
    for day in (today - timedelta(days=1), today):
        for entry in await ledger.entries(day, await ledger.tenants(day)):
            name = entry.tenant, entry.model
            sums[name] = sums.get(name, Used()) + entry.used
    return sums


async def test_an_answer_is_entered_for_its_tenant_model_and_day(
    actor: Any, enqueue: Any, ledger: Ledger
) -> None:
    worker = await actor()
    await enqueue(tenant="red")
    (claimed,) = await worker.claim()
    await worker.finish(claimed, used=12)
    assert await ledger.today() in {
        datetime.now(UTC).date() + timedelta(days=days) for days in (-1, 0, 1)
    }
    assert await total(ledger) == {("red", "a"): Used(1, 12, 0, 0)}
    await worker.finish(claimed, used=12)
    assert await total(ledger) == {("red", "a"): Used(1, 12, 0, 0)}


async def test_failed_and_cancelled_jobs_count_with_the_tokens_that_they_report(
    actor: Any, enqueue: Any, queue: Queue, ledger: Ledger
) -> None:
    worker = await actor()
    jobs = [await enqueue(tenant="red") for _ in range(3)]
    failed, cancelled = await worker.claim(sequences=2)
    await worker.fail(failed, ErrorCode.INTERNAL)
    await queue.cancel(cancelled.job.id)
    await worker.finish(cancelled, JobState.CANCELLED, used=5)
    await queue.cancel(jobs[-1].id)
    assert await total(ledger) == {("red", "a"): Used(3, 5, 0, 0)}


async def test_entries_expire_after_the_days_of_the_setting(
    actor: Any, enqueue: Any, ledger: Ledger, redis: Redis, keys: Keys
) -> None:
    worker = await actor()
    await enqueue(tenant="red")
    (claimed,) = await worker.claim()
    await worker.finish(claimed)
    today = (await redis.time())[0] * 1000 // DAY_MS
    for key in (keys.ledger(today, "red"), keys.ledger_tenants(today)):
        assert await redis.pexpiretime(key) == (today + 1 + LIMITS.usage_days) * DAY_MS


async def test_thousands_of_models_are_read_completely(
    redis: Redis, keys: Keys, ledger: Ledger
) -> None:
    today = await ledger.today()
    number = (await redis.time())[0] * 1000 // DAY_MS
    for tenant in ("red", "blue"):
        rows = {f"m{model:04}": f"{model} 1 2 3" for model in range(3000)}
        await redis.hset(keys.ledger(number, tenant), mapping=rows)  # type: ignore[misc]
    entries = await ledger.entries(today, ["red", "blue", "nobody"])
    assert [(entry.tenant, entry.used.requests) for entry in entries] == [
        (tenant, model) for tenant in ("blue", "red") for model in range(3000)
    ]


class Traffic:
    """Clients that cancel some jobs, and workers that die, release, repeat calls and fail."""

    def __init__(self, queue: Queue, redis: Redis, keys: Keys) -> None:
        self.queue, self.redis, self.keys = queue, redis, keys
        self.random, self.views = random.Random(7), PoolViews(redis, keys)
        self.jobs: list[Job] = []

    async def send(self, num_jobs: int) -> None:
        for _ in range(num_jobs):
            version, tenant = self.random.choice(VERSIONS), self.random.choice(("red", "blue"))
            self.jobs.append(make_job(version, tenant=tenant))
        for some in chunks(self.jobs, BATCH):
            await asyncio.gather(*(self.queue.enqueue(job, LONG) for job in some))
            await self.queue.cancel(some[0].id)

    async def work(self, number: int) -> None:
        """Run one worker after another until no job is left."""
        life = 0
        while await self.redis.zcard(self.keys.due):
            life += 1
            name = f"w{number}.{life}"
            worker = Actor(self.queue, self.redis, self.keys, name, list(VERSIONS))
            await worker.register()
            with suppress(LeaseLost):
                await self.live(worker)

    async def live(self, worker: Actor) -> None:
        for _ in range(30):
            jobs = await worker.claim(sequences=BATCH)
            is_killed = self.random.random() < 0.1
            ended = jobs[: len(jobs) // 2] if is_killed else jobs
            await asyncio.gather(*(self.end(worker, claimed) for claimed in ended))
            if is_killed:
                await worker.die()
                return
        await self.queue.leave(worker.id)

    async def end(self, worker: Actor, claimed: ClaimedJob) -> None:
        fate = self.random.random()
        if fate < 0.1:
            await self.queue.release(worker.id, [claimed.job.id])
        elif fate < 0.2:
            await self.queue.cancel(claimed.job.id)
            await worker.finish(claimed, JobState.CANCELLED, used=self.random.randrange(50))
        elif fate < 0.25:
            await worker.fail(claimed, ErrorCode.INTERNAL)
        else:
            await worker.finish(claimed, used=self.random.randrange(1, 100))
            await worker.finish(claimed, used=999)  # the reply to the first call was lost

    async def read(self, jobs: Sequence[Job]) -> list[JobView | None]:
        return list(await asyncio.gather(*(self.views.job(job.id) for job in jobs)))

    async def seen(self) -> dict[tuple[str, str], Used]:
        """Return the sums of what clients see of their jobs, by tenant and model."""
        sums: dict[tuple[str, str], Used] = {}
        views = [view for some in chunks(self.jobs, BATCH) for view in await self.read(some)]
        for job, view in zip(self.jobs, views, strict=True):
            assert view is not None
            usage = view.usage or Usage(prompt_tokens=0, completion_tokens=0)
            used = Used(1, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
            name = job.tenant, job.model
            sums[name] = sums.get(name, Used()) + used
        return sums


@pytest.mark.timeout(300)
@pytest.mark.parametrize("num_jobs", [600, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_the_ledger_equals_the_usage_of_all_jobs_although_workers_die(
    queue: Queue, redis: Redis, keys: Keys, ledger: Ledger, num_jobs: int
) -> None:
    for version in VERSIONS:
        await Registry(redis, keys).load_adapter(make_adapter(version), replace=False)
    traffic = Traffic(queue, redis, keys)
    await traffic.send(num_jobs)
    async with asyncio.timeout(240):
        await asyncio.gather(*(traffic.work(number) for number in range(3)))
    seen = await traffic.seen()
    assert await total(ledger) == seen
    assert sum(used.requests for used in seen.values()) == num_jobs
