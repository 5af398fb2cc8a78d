"""Pauses of a pool. `test_properties.py` also pauses at random moments."""

from queue_support import NEVER_MS

from shared.protocol.queue_replies import Mail, MailKind
from shared.store.adapters.audit_log import Changes
from shared.store.audit.auditor import Auditor
from shared.store.jobs.pauses import Pauses
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys


async def test_no_worker_gets_a_job_while_the_pool_is_paused(
    actor, enqueue, redis: Redis, keys: Keys
) -> None:
    pauses, worker, cold = Pauses(redis, keys), await actor("w1"), await actor("w2", holds=[])
    running = await enqueue()
    assert await worker.claim_ids() == [running.id]
    await pauses.begin(by="red/key")
    waiting, foreign = await enqueue(), await enqueue("b@1")
    for one in (worker, cold):
        claim = await one.try_claim(max_cold=5, steal_ms=0, load_ms=0)
        assert (claim.jobs, claim.is_parked, claim.next_steal_ms) == ((), False, None)
    await pauses.end(by="red/key")
    assert await worker.claim_ids(steal_ms=NEVER_MS) == [waiting.id]
    assert await cold.claim_ids(max_cold=5) == [foreign.id]


async def test_a_job_that_is_released_during_a_pause_waits_for_its_end(
    actor, enqueue, queue: Queue, redis: Redis, keys: Keys
) -> None:
    pauses, worker = Pauses(redis, keys), await actor("w1")
    job = await enqueue()
    await worker.claim_ids()
    await pauses.begin(by="red")
    await queue.release(worker.id, [job.id])
    assert await worker.claim_ids() == []
    await pauses.end(by="red")
    assert await worker.claim_ids() == [job.id]


async def test_the_end_of_a_pause_wakes_the_workers(
    actor, enqueue, queue: Queue, redis: Redis, keys: Keys
) -> None:
    pauses, worker = Pauses(redis, keys), await actor("w1")
    await pauses.begin(by="red")
    await worker.claim_ids()
    await enqueue()
    assert await queue.wait(worker.id, timeout_s=0.01) is None
    await pauses.end(by="red")
    assert await queue.wait(worker.id, timeout_s=0.01) == Mail(kind=MailKind.JOB)


async def test_a_pause_keeps_its_first_author_and_the_audit_log_has_both_ends(
    redis: Redis, keys: Keys
) -> None:
    pauses = Pauses(redis, keys)
    assert await pauses.current() is None
    await pauses.end(by="nobody")
    await pauses.begin(by="red")
    begun = await pauses.current()
    await pauses.begin(by="blue")
    assert await pauses.current() == begun
    assert begun is not None
    assert begun.by == "red"
    assert not (await Auditor(redis, keys).audit()).strays
    await pauses.end(by="blue")
    assert await pauses.current() is None
    changes = await Changes(redis, keys).newest(9, before=None, wanted=lambda _: True)
    assert [(c.action, c.by) for c in changes] == [("continued", "blue"), ("paused", "red")]
