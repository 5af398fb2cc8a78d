"""A pool in use has no strays, whatever its clients and workers do."""

import asyncio
import random
from contextlib import suppress
from dataclasses import replace

import pytest
from queue_support import API, LIMITS, Actor, eventually, make_adapter, make_job, tokens

from shared.errors import JobFailed, LeaseLost
from shared.protocol.capabilities import EVERYTHING, Capabilities
from shared.protocol.embeddings import EmbeddingParams
from shared.protocol.enqueue import EnqueueOptions, IdempotencyKey
from shared.protocol.ids import ApiId
from shared.protocol.jobs import ClaimedJob
from shared.store.adapters.registry import Registry
from shared.store.audit.auditor import Auditor
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

MAX_WAITING = 40
NUM_ENDED = 400
SEEDS = [0, pytest.param(1, marks=pytest.mark.slow)]
SHORT = replace(LIMITS, retain_ms=300, retain_bytes=20_000)
"""Limits with which answers are deleted early, by age and by bytes."""
PLAIN = Capabilities(kinds=frozenset(), features=frozenset(), max_rank=16)
VERSIONS = [f"a{number}@1" for number in range(4)]


@pytest.fixture
def auditor(redis: Redis, keys: Keys) -> Auditor:
    return Auditor(redis, keys)


class Traffic:
    """Random clients and workers of one pool. Some workers are killed."""

    def __init__(self, queue: Queue, redis: Redis, keys: Keys, seed: int) -> None:
        self.queue, self.redis, self.keys = queue, redis, keys
        self.random = random.Random(seed)
        self.registry, self.views = Registry(redis, keys), PoolViews(redis, keys)
        self.ended = 0

    def happens(self, share: float) -> bool:
        return self.random.random() < share

    async def clients(self) -> None:
        while True:
            if (await self.views.counts()).waiting < MAX_WAITING:
                await self.request()
            await self.flip_adapter()

    async def request(self) -> None:
        embedding = EmbeddingParams() if self.happens(0.2) else None
        job = make_job(
            self.random.choice(VERSIONS), tenant=self.random.choice("rgb"), embedding=embedding
        )
        key = IdempotencyKey(key=self.random.choice("xyz"), body_digest=self.random.choice("12"))
        options = EnqueueOptions(idempotency=key if self.happens(0.3) else None)
        with suppress(JobFailed):  # another body had the same key, or no live worker serves it
            await self.queue.enqueue(job, SHORT, options=options)
        if self.happens(0.2):
            await self.queue.attach(job.id, ApiId("api-2"))
        if self.happens(0.2):
            await self.queue.cancel(job.id)
        if self.happens(0.1):
            await self.queue.abandon(job.id, API, grace_ms=self.random.choice((0, 5)))

    async def flip_adapter(self) -> None:
        name = f"b{self.random.randrange(3)}"
        if self.happens(0.1):
            await self.registry.load_adapter(
                make_adapter(f"{name}@{self.random.randrange(8)}"), replace=True
            )
        elif self.happens(0.05):
            await self.registry.unload_adapter(name)
        await self.registry.forget_unused()

    async def worker(self, number: int) -> None:
        """Run one worker after another. One of the three serves only plain LoRA."""
        serves = PLAIN if number == 2 else EVERYTHING
        life = 0
        while True:
            life += 1
            name = f"w{number}.{life}"
            worker = Actor(self.queue, self.redis, self.keys, name, VERSIONS, serves)
            await worker.register()
            with suppress(LeaseLost):
                await self.live(worker)

    async def live(self, worker: Actor) -> None:
        while self.happens(0.9):
            for claimed in await worker.claim(sequences=4):
                await self.answer(worker, claimed)
        if self.happens(0.5):
            await self.queue.leave(worker.id)
        else:
            await worker.claim(sequences=2)
            await worker.die()

    async def answer(self, worker: Actor, claimed: ClaimedJob) -> None:
        piece = tokens(claimed.job, 0, [5], "x", try_=claimed.try_)
        epochs = {claimed.job.id: claimed.claim_epoch}
        await self.queue.publish(worker.id, {API: [piece]}, [piece], claim_epochs=epochs)
        if self.happens(0.1):
            await self.queue.release(worker.id, [claimed.job.id])
        else:
            await worker.finish(claimed)
            self.ended += 1
            if self.happens(0.1):
                await self.queue.erase(claimed.job.id)

    async def sweeps(self) -> None:
        while True:
            await self.queue.reap(every_ms=20)
            await asyncio.sleep(0.02)

    async def run(self, num_ended: int) -> None:
        loops = [self.clients(), self.sweeps(), *(self.worker(number) for number in range(3))]
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(loop) for loop in loops]

            async def is_done() -> bool:
                return self.ended >= num_ended

            await eventually(is_done, within_s=60)
            for task in running:
                task.cancel()


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_busy_pool_has_no_strays(
    auditor: Auditor, queue: Queue, redis: Redis, keys: Keys, seed: int
) -> None:
    traffic = Traffic(queue, redis, keys, seed)
    sweeping = asyncio.create_task(traffic.sweeps())  # goes on until the last audit is over
    serving = asyncio.create_task(traffic.run(NUM_ENDED))
    while not serving.done():
        audit = await auditor.audit(settle_s=3)
        assert audit.strays == ()
    await serving
    sweeping.cancel()
