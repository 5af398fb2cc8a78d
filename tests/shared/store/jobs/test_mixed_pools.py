"""A worker gets only jobs that it serves, and no job waits for a worker that can't serve it."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from queue_support import LIMITS, NEVER_MS, Actor, make_adapter, make_job

from shared.errors import ErrorCode, JobFailed
from shared.protocol.capabilities import EVERYTHING, AdapterKind, Capabilities
from shared.protocol.embeddings import EmbeddingParams
from shared.protocol.enqueue import QueueLimits
from shared.protocol.jobs import Endpoint, Job
from shared.store.adapters.registry import Registry
from shared.store.adapters.residency import ResidencyStore
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

PLAIN = Capabilities(kinds=frozenset(), features=frozenset(), max_rank=16)
"""Capabilities of a worker that serves only plain LoRA of small ranks."""
DORA, LARGE = "dora@1", "large@1"
ROOMY = QueueLimits(
    max_waiting=NEVER_MS, max_waiting_adapter=NEVER_MS, max_waiting_tenant=NEVER_MS, retain_ms=1000
)
Start = Callable[..., Awaitable[Actor]]
Put = Callable[..., Awaitable[Job]]


@pytest.fixture
def registry(redis: Redis, keys: Keys) -> Registry:
    return Registry(redis, keys)


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
    queue: Queue, actor: Start, redis: Redis, keys: Keys
) -> None:
    async def with_capacity(name: str, serves: Capabilities, kv_tokens: int) -> Actor:
        worker = Actor(queue, redis, keys, name, ["base@1"], serves)
        worker.info = replace(worker.info, kv_tokens=kv_tokens)
        return await worker.register()

    small = await with_capacity("small", EVERYTHING, 100)
    large = await with_capacity("large", PLAIN, 1000)
    with pytest.raises(JobFailed, match="no worker holds more than 100 at a time"):
        await queue.enqueue(make_job(**embeddings(cost=500)), LIMITS)
    plain_job = make_job("base@1", cost=500)
    await queue.enqueue(plain_job, LIMITS)
    assert await small.claim_ids(tokens=100) == []
    assert await large.claim_ids(tokens=1000) == [plain_job.id]
    other = await with_capacity("other", EVERYTHING, 1000)
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
