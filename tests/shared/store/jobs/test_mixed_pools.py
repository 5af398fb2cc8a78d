"""A worker gets only jobs that it serves and has the capacity for, and no others wait for it."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from queue_support import LIMITS, NEVER_MS, Actor, eventually, make_adapter, make_job

from shared.errors import ErrorCode, JobFailed
from shared.protocol.capabilities import (
    EVERYTHING,
    WITHOUT_IMAGES,
    AdapterKind,
    Capabilities,
    Feature,
)
from shared.protocol.embeddings import EmbeddingParams
from shared.protocol.enqueue import QueueLimits
from shared.protocol.ids import JobId, WorkerId
from shared.protocol.jobs import ClaimedJob, Endpoint, Job
from shared.store.adapters.registry import Registry
from shared.store.adapters.residency import ResidencyStore
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

PLAIN = Capabilities(kinds=frozenset(), features=frozenset(), max_rank=16)
"""Capabilities of a worker that serves only plain LoRA of small ranks."""
DORA, LARGE = "dora@1", "large@1"
ROOMY = QueueLimits(
    max_waiting=NEVER_MS, max_waiting_adapter=NEVER_MS, max_waiting_tenant=NEVER_MS, retain_ms=1000
)
Start = Callable[..., Awaitable[Actor]]
Put = Callable[..., Awaitable[Job]]


@pytest.fixture(autouse=True)
async def adapters(registry: Registry) -> None:
    """Register a plain adapter, a DoRA adapter and one with a large rank."""
    await registry.add_adapter(make_adapter("a@1"))
    await registry.add_adapter(make_adapter(DORA, kinds=frozenset({AdapterKind.DORA})))
    await registry.add_adapter(make_adapter(LARGE, rank=64))


@pytest.fixture
async def plain(actor: Start) -> Actor:
    return await actor("plain", holds=["base@1"], serves=PLAIN)


@pytest.fixture
async def full(actor: Start) -> Actor:
    return await actor("full", holds=["base@1"])


def embeddings(version: str = "base@1", **changes: Any) -> dict[str, Any]:
    params = EmbeddingParams()
    return {"version": version, "endpoint": Endpoint.EMBEDDINGS, "embedding": params, **changes}


FOREIGN: dict[str, Any] = {"max_cold": 8, "steal_ms": 0}
"""Arguments of a claim that may take jobs of any version."""


@pytest.mark.parametrize("fields", [{"version": DORA}, {"version": LARGE}, embeddings()])
async def test_a_worker_gets_only_jobs_that_it_serves(
    plain: Actor, full: Actor, enqueue: Put, fields: dict[str, Any]
) -> None:
    job, other = await enqueue(**fields), await enqueue("a@1")
    assert await plain.claim_ids(**FOREIGN) == [other.id]
    assert await full.claim_ids(**FOREIGN) == [job.id]


async def enqueue_unserved(registry: Registry, queue: Queue, num_versions: int) -> None:
    for number in range(num_versions):
        adapter = make_adapter(f"d{number}@1", kinds=frozenset({AdapterKind.DORA}))
        await registry.add_adapter(adapter)
        await queue.enqueue(make_job(adapter.version), ROOMY)


async def test_thousands_of_unserved_versions_do_not_hide_a_served_one(
    plain: Actor, full: Actor, registry: Registry, queue: Queue
) -> None:
    await enqueue_unserved(registry, queue, 600)
    job = make_job("a@1")
    await queue.enqueue(job, ROOMY)
    assert await plain.claim_ids(**FOREIGN) == [job.id]


async def test_an_overdue_served_version_is_found_behind_unserved_ones(
    plain: Actor, full: Actor, registry: Registry, queue: Queue
) -> None:
    await enqueue_unserved(registry, queue, 100)
    overdue = make_job("a@1")
    await queue.enqueue(overdue, ROOMY)
    await queue.enqueue(make_job("base@1"), ROOMY)
    assert (await plain.claim_ids(max_cold=1, load_ms=-1, sequences=1)) == [overdue.id]


async def test_a_queue_full_of_unserved_jobs_does_not_hide_the_served_ones(
    plain: Actor, full: Actor, enqueue: Put
) -> None:
    waiting = [await enqueue(**embeddings(), limits=ROOMY) for _ in range(600)]
    served = [await enqueue("base@1", limits=ROOMY) for _ in range(3)]
    assert await plain.claim_ids() == [job.id for job in served]
    assert await full.claim_ids(sequences=2) == [job.id for job in waiting[:2]]


async def test_jobs_behind_more_unserved_ones_than_one_claim_sees_are_found_in_time(
    plain: Actor, full: Actor, redis: Redis, keys: Keys, enqueue: Put
) -> None:
    first = await enqueue(**embeddings(), limits=ROOMY)
    many = {f"{number:032x}": "embeddings" for number in range(20_000)}
    await redis.hset(keys.featured(first.version), mapping=many)  # type: ignore[arg-type, misc]
    await redis.zadd(keys.queue(first.version), dict.fromkeys(many, 1.0))
    served = await enqueue("base@1", limits=ROOMY)
    for _ in range(100):
        if claimed := await plain.claim_ids():
            break
    assert claimed == [served.id]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"version": DORA},
            "adapter dora is a DoRA adapter, and no live worker of this pool serves DoRA: start "
            "one with --engine native",
        ),
        (
            {"version": LARGE},
            "adapter large has rank 64, and no live worker of this pool serves ranks above 16: "
            "start one with --engine native",
        ),
        (
            embeddings(),
            "model base is asked for embeddings, and no live worker of this pool serves requests "
            "for embeddings: start one with --engine native",
        ),
    ],
)
async def test_a_job_that_no_live_worker_serves_is_refused(
    plain: Actor, queue: Queue, actor: Start, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(JobFailed) as failed:
        await queue.enqueue(make_job(**fields), LIMITS)
    assert failed.value.error.code == ErrorCode.ADAPTER_UNAVAILABLE
    assert (failed.value.error.status, failed.value.error.message) == (503, message)
    await actor("another")
    await queue.enqueue(make_job(**fields), LIMITS)


async def test_needs_that_no_single_worker_serves_are_named(
    actor: Start, queue: Queue, plain: Actor
) -> None:
    await actor("able", serves=replace(PLAIN, kinds=frozenset({AdapterKind.DORA})))
    await actor("embedder", serves=replace(EVERYTHING, kinds=frozenset()))
    with pytest.raises(JobFailed, match="needs DoRA, requests for embeddings, rank 8, and no live"):
        await queue.enqueue(make_job(**embeddings(DORA)), LIMITS)


async def test_no_job_is_left_to_a_larger_worker_that_does_not_serve_it(
    queue: Queue, actor: Start
) -> None:
    small = await actor("small", holds=["base@1"], kv_tokens=100)
    large = await actor("large", holds=["base@1"], kv_tokens=1000, serves=PLAIN)
    with pytest.raises(JobFailed, match="no worker holds more than 100 at a time"):
        await queue.enqueue(make_job(**embeddings(cost=500)), LIMITS)
    plain_job = make_job("base@1", cost=500)
    await queue.enqueue(plain_job, LIMITS)
    assert await small.claim_ids(tokens=100) == []
    assert await large.claim_ids(tokens=1000) == [plain_job.id]
    other = await actor("other", holds=["base@1"], kv_tokens=1000)
    job = make_job(**embeddings(cost=500))
    await queue.enqueue(job, LIMITS)
    await queue.leave(other.id)
    assert await small.claim_ids(tokens=100) == [job.id]  # an idle worker takes a job of any size


async def test_only_versions_that_a_worker_serves_are_prefetched(
    actor: Start, plain: Actor, enqueue: Put, redis: Redis, keys: Keys
) -> None:
    await actor("full", holds=[])
    residency = ResidencyStore(redis, keys)
    await enqueue(DORA)
    await enqueue(LARGE)
    await enqueue(**embeddings("b@1"))
    await enqueue("a@1")
    assert await residency.cold_heads(8, PLAIN) == ["a@1"]
    assert await residency.cold_heads(8) == [DORA, LARGE, "b@1", "a@1"]
    await enqueue("b@1")
    assert await residency.cold_heads(8, PLAIN) == ["b@1", "a@1"]


async def test_the_needs_of_a_forgotten_version_are_forgotten(
    registry: Registry, redis: Redis, keys: Keys
) -> None:
    assert await redis.hget(keys.needs, DORA) == b"dora;;8"  # type: ignore[misc]
    await registry.unload_adapter("dora")
    assert await registry.forget_unused() == [DORA]
    assert not await redis.hexists(keys.needs, DORA)  # type: ignore[misc]


async def test_unserved_jobs_do_not_delay_an_adapter_that_nobody_holds(
    plain: Actor, full: Actor, enqueue: Put
) -> None:
    """The first own job is for another worker, so that its age says nothing about own jobs."""
    await enqueue(**embeddings(), limits=ROOMY)
    overdue, _ = await enqueue("a@1"), await enqueue("base@1")
    assert await plain.claim_ids(max_cold=1, load_ms=-1, sequences=1) == [overdue.id]


MOST = 1000
"""Capacity of a worker in tokens."""


@pytest.fixture
async def small_and_large(actor: Start) -> tuple[Actor, Actor]:
    """Workers with a capacity of MOST and of twice as many tokens."""
    return await actor("small", kv_tokens=MOST), await actor("large", kv_tokens=2 * MOST)


async def test_a_job_that_exceeds_every_live_worker_is_refused(
    small_and_large: tuple[Actor, Actor], queue: Queue
) -> None:
    _, large = small_and_large
    await queue.enqueue(make_job(cost=2 * MOST), LIMITS)
    with pytest.raises(JobFailed) as failed:
        await queue.enqueue(make_job(cost=2 * MOST + 1), LIMITS)
    assert failed.value.error.status == 400
    assert failed.value.error.code == ErrorCode.CONTEXT_LENGTH_EXCEEDED
    assert "2001 tokens" in failed.value.error.message
    await queue.leave(large.id)
    with pytest.raises(JobFailed):
        await queue.enqueue(make_job(cost=MOST + 1), LIMITS)


async def test_without_a_live_worker_any_job_is_accepted(enqueue) -> None:
    await enqueue(cost=NEVER_MS)


async def test_a_large_job_is_left_to_a_worker_with_the_capacity_for_it(
    small_and_large: tuple[Actor, Actor], queue: Queue
) -> None:
    small, large = small_and_large
    job, behind = make_job(cost=MOST + 1), make_job()
    for each in (job, behind):
        await queue.enqueue(each, LIMITS)
    assert await small.claim_ids(tokens=MOST) == [behind.id]
    assert await large.claim_ids(tokens=2 * MOST) == [job.id]


async def test_no_worker_idles_while_small_jobs_wait_after_a_large_one(
    actor, enqueue, queue: Queue, views: PoolViews
) -> None:
    """1,000 small jobs and one that needs a whole worker, on four workers with ten slots each."""
    slots, tokens = 10, 1000
    workers = [await actor(f"w{i}") for i in range(4)]
    running: dict[WorkerId, list[ClaimedJob]] = {worker.id: [] for worker in workers}
    small = [make_job(cost=100) for _ in range(1000)]
    large = make_job(cost=tokens)
    for job in (*small[:100], large, *small[100:]):
        await queue.enqueue(job, ROOMY)
    ends: list[JobId] = []
    idle: Counter[WorkerId] = Counter()
    while len(ends) < 1001:
        for worker in workers:
            mine = running[worker.id]
            for _ in range(2):  # as workers do: until no job is returned
                used = sum(c.job.cost for c in mine)
                mine += await worker.claim(sequences=slots - len(mine), tokens=tokens - used)
            if not mine and (await views.counts()).waiting:
                idle[worker.id] += 1
        for worker in workers:
            if mine := running[worker.id]:
                done = mine.pop(0)
                await worker.finish(done)
                ends.append(done.job.id)
    assert not idle
    assert ends.index(large.id) < 400  # the large job isn't delayed forever
    assert (await views.counts()).waiting == 0


async def test_a_small_worker_reaches_small_jobs_after_many_large_ones(
    small_and_large: tuple[Actor, Actor], queue: Queue
) -> None:
    small, _ = small_and_large
    for _ in range(150):
        await queue.enqueue(make_job(cost=MOST + 1), ROOMY)
    behind = make_job()
    await queue.enqueue(behind, ROOMY)

    async def gets_it() -> bool:
        claim = await small.try_claim(tokens=MOST)
        assert claim.next_steal_ms is None or claim.jobs
        return [claimed.job.id for claimed in claim.jobs] == [behind.id]

    await eventually(gets_it)


async def test_a_reservation_ends_when_its_worker_stops_renewing_it(
    actor, enqueue, redis, keys
) -> None:
    victim, silent, other = [await actor(name) for name in ("w1", "w2", "w3")]
    suspect = await enqueue()
    await victim.claim()
    for worker in (silent, other):
        await enqueue()
        await worker.claim()
    await victim.die()
    await silent.claim(sequences=7)
    await redis.hset(keys.job(suspect.id), "reserved", f"{silent.id} 1")
    waiting = await enqueue()
    assert await other.claim(sequences=7) == []
    assert await silent.claim_ids(sequences=7) == [waiting.id]


async def test_a_reservation_ends_with_its_worker(actor, enqueue) -> None:
    first, second = await actor("w1"), await actor("w2")
    for worker in (first, second):
        await enqueue(cost=100)
        await worker.claim(tokens=MOST)
    large = await enqueue(cost=MOST)
    assert await first.claim(tokens=MOST - 100) == []
    await first.die()
    mine = await second.claim(tokens=MOST - 100)
    assert large.id not in {c.job.id for c in mine}
    assert not await second.is_parked()


async def test_jobs_with_images_run_only_on_workers_that_serve_images(
    actor: Start, enqueue: Put
) -> None:
    text = await actor("text", holds=["base@1", "a@1"], serves=WITHOUT_IMAGES)
    vision = await actor(
        "vision",
        holds=["base@1", "a@1"],
        serves=replace(PLAIN, features=frozenset({Feature.IMAGES})),
    )
    image, adapted = [await enqueue(version, images=("aW1hZ2U=",)) for version in ("base@1", "a@1")]
    embedded = await enqueue(**embeddings())
    assert await text.claim_ids(**FOREIGN) == [embedded.id]
    assert set(await vision.claim_ids(**FOREIGN)) == {image.id, adapted.id}


async def test_images_for_an_adapter_of_another_kind_are_refused_by_name(
    actor: Start, queue: Queue
) -> None:
    await actor("text", holds=["base@1"], serves=WITHOUT_IMAGES)
    await actor(
        "vision", holds=["base@1"], serves=replace(PLAIN, features=frozenset({Feature.IMAGES}))
    )
    with pytest.raises(JobFailed, match="send the request without images") as failed:
        await queue.enqueue(make_job(DORA, images=("aW1hZ2U=",)), LIMITS)
    assert failed.value.error.status == 400
