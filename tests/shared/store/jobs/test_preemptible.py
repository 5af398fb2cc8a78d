"""Preemptible jobs: they wait behind all others, and take idle capacity only."""

from queue_support import LIMITS, make_job

from shared.protocol.enqueue import EnqueueOptions
from shared.protocol.ids import AdapterVersion
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys


async def test_every_other_job_is_claimed_first(actor, enqueue) -> None:
    batch = await enqueue(is_preemptible=True, priority=10)
    low = await enqueue(priority=-10, cost=5000)
    other = await enqueue("b@1")
    assert await (await actor(holds=["a@1", "b@1"])).claim_ids() == [other.id, low.id, batch.id]


async def test_a_worker_without_idle_capacity_gets_no_preemptible_job(actor, enqueue) -> None:
    worker, running = await actor(), await enqueue()
    assert await worker.claim_ids() == [running.id]
    batch = await enqueue(is_preemptible=True)
    assert await worker.claim_ids(sequences=8, idle_sequences=0) == []
    assert await worker.is_parked(), "a job that isn't preemptible would wake it"
    assert await worker.claim_ids(sequences=8, idle_sequences=1) == [batch.id]


async def test_other_jobs_get_the_places_of_preemptible_ones(actor, enqueue) -> None:
    worker, batch = await actor(), [await enqueue(is_preemptible=True) for _ in range(3)]
    assert await worker.claim_ids(sequences=2) == [batch[0].id, batch[1].id]
    job = await enqueue()
    assert await worker.claim_ids(sequences=2, idle_sequences=0) == [job.id]


async def test_a_preemptible_job_that_waits_does_not_stop_the_jobs_of_other_adapters(
    actor, enqueue
) -> None:
    await enqueue(is_preemptible=True)
    worker = await actor()
    await worker.claim_ids(sequences=1)
    await enqueue(is_preemptible=True)
    cold = await enqueue("b@1")
    claim = await worker.try_claim(sequences=1, idle_sequences=0, max_cold=1)
    assert [claimed.job.id for claimed in claim.jobs] == [cold.id]


async def test_a_large_preemptible_job_does_not_drain_a_worker(actor, enqueue) -> None:
    worker, running = await actor(), await enqueue()
    assert await worker.claim_ids() == [running.id]
    await enqueue(is_preemptible=True, cost=9_999)
    assert await worker.claim_ids(idle_tokens=100) == []
    job = await enqueue()
    assert await worker.claim_ids(idle_tokens=100) == [job.id]


async def test_a_parked_worker_with_idle_places_is_woken_first(
    actor, enqueue, queue: Queue
) -> None:
    busy, idle = await actor("busy"), await actor("idle")
    await busy.claim(sequences=8, idle_sequences=1)
    await idle.claim(sequences=6, idle_sequences=6)
    await enqueue()
    assert await queue.wait(idle.id, timeout_s=1) is not None


async def test_preemptible_tokens_do_not_count_against_the_tenants_other_jobs(
    actor, enqueue
) -> None:
    worker = await actor()
    for _ in range(3):
        await enqueue(tenant="red", cost=900, is_preemptible=True)
    assert len(await worker.claim()) == 3
    red, blue = await enqueue(tenant="red", cost=10), await enqueue(tenant="blue", cost=10)
    assert await worker.claim_ids() == [red.id, blue.id]


async def test_preemptible_jobs_of_two_tenants_share_the_pool(actor, queue: Queue) -> None:
    jobs = [
        make_job(tenant=tenant, cost=100, is_preemptible=True) for tenant in ("a", "a", "a", "b")
    ]
    for job in jobs:
        await queue.enqueue(job, LIMITS, options=EnqueueOptions())
    order = await (await actor()).claim_ids()
    assert order.index(jobs[3].id) <= 1, "it waits for one job of the other tenant at most"


async def test_a_released_preemptible_job_waits_behind_new_jobs(actor, enqueue) -> None:
    worker, batch = await actor(), await enqueue(is_preemptible=True)
    await worker.claim()
    await worker.queue.release(worker.id, [batch.id])
    job = await enqueue()
    assert await worker.claim_ids() == [job.id, batch.id]


async def test_the_refund_of_a_preemptible_job_goes_to_its_own_tag(
    actor, enqueue, redis: Redis, keys: Keys
) -> None:
    await enqueue(AdapterVersion("a@1"), tenant="red", cost=100, is_preemptible=True)
    worker = await actor()
    (claimed,) = await worker.claim()
    await worker.finish(claimed, used=30)
    tags = await redis.hmget(keys.tenant("red"), "preemptible_tag", "tag")
    assert (float(tags[0]), tags[1]) == (30, None)
