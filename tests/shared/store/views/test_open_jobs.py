"""The unfinished jobs of a tenant, all of them or those of one name."""

from queue_support import Actor

from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.open_jobs import OpenJobs


async def test_only_unfinished_jobs_of_the_tenant_are_found(
    actor, enqueue, queue: Queue, redis: Redis, keys: Keys
) -> None:
    worker: Actor = await actor("w1")
    ended, running = await enqueue(tenant="red", rid="a"), await enqueue(tenant="red", rid="a")
    (first, second) = await worker.claim(sequences=2)
    assert (first.job.rid, second.job.id) == ("a", running.id)
    await worker.finish(first)
    waiting = await enqueue(tenant="red", rid="a:2")
    unnamed = await enqueue(tenant="red")
    batch = await enqueue(tenant="red", rid="a", is_preemptible=True)
    other = await enqueue(tenant="blue", rid="a")
    jobs = OpenJobs(redis, keys)
    assert set(await jobs.of("red")) == {running.id, waiting.id, unnamed.id}
    assert await jobs.named("red", "a") == [running.id]
    assert set(await jobs.named("red", "a", is_prefix=True)) == {running.id, waiting.id}
    assert await jobs.named("blue", "a") == [other.id]
    assert await jobs.of("nobody") == []
    await queue.cancel(waiting.id)
    assert set(await jobs.of("red")) == {running.id, unnamed.id}
    assert batch.id not in await jobs.of("red")
    assert ended.id not in await jobs.of("red")
