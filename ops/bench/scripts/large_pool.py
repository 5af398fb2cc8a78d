"""A large pool without engines, for measuring the queue's scripts."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from ops.bench.compare.queue_latency import API, LEASE_MS, LIMITS, new_pool
from ops.bench.scripts.costs import Meter
from shared.protocol.events import Tokens
from shared.protocol.ids import AdapterVersion, ApiId, JobId, WorkerId
from shared.protocol.jobs import ClaimedJob, Endpoint, Job, SamplingParams
from shared.protocol.workers import WorkerInfo
from shared.store.keys import Keys
from shared.store.queue import Queue
from shared.store.queue_replies import Claim
from shared.store.registry import Adapter, BaseModel, Registry

T = TypeVar("T")

BASE = AdapterVersion("bench@0123456789ab")
AT_ONCE = 64
"""Calls in flight while the pool is filled, and jobs of a busy worker."""
HOT = 64
HOLDERS = 16
"""Of each hot version: as many as the scripts look at."""
NEVER_MS = 10**9
SHORT_LEASE_MS = 20_000
KV_TOKENS = 100_000
NUM_APIS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large the pool is."""

    workers: int
    adapters: int
    waiting: int
    running: int


class LargePool:
    """Workers that all hold the base model, and jobs that wait for many adapters.

    The first versions in the queue are hot: `HOLDERS` workers hold each. Nobody holds the others.
    """

    def __init__(self, meter: Meter, sizes: Sizes) -> None:
        self.meter, self.sizes = meter, sizes
        self.keys = Keys(new_pool())
        self.queue, self.registry = Queue(meter, self.keys), Registry(meter, self.keys)
        self.workers = [WorkerId(f"host-{n}:1:{n:032x}") for n in range(sizes.workers)]
        self.versions = [version(number) for number in range(sizes.adapters)]
        self.hot = self.versions[: min(HOT, sizes.adapters // 2)]

    async def fill(self) -> None:
        """Register everybody, let the first workers run, and the rest of the jobs wait."""
        await self.registry.set_base(base_model("1"))
        await each(range(self.sizes.adapters), self.load_adapter)
        await each(range(self.sizes.workers), self._register)
        busy = max(1, self.sizes.running // AT_ONCE)
        for worker in self.workers[:busy]:
            await each([BASE] * (self.sizes.running // busy), self.put)
            await self.claim(worker, sequences=AT_ONCE, residents=[BASE])
        await each(range(self.sizes.waiting), self._put_number)

    async def load_adapter(self, number: int) -> None:
        """Register the adapter of this number for a client."""
        await self.registry.load_adapter(adapter(number), replace=False)

    async def put(
        self, version: AdapterVersion, *, is_suspect: bool = False, **changes: Any
    ) -> Job:
        """Enqueue a new job."""
        made = _job(version, **changes)
        await self.queue.enqueue(made, LIMITS, is_suspect=is_suspect)
        return made

    async def renew(self, lease_ms: int) -> None:
        """Renew all leases, and park everybody."""
        await each(self.workers, lambda wid: self.beat(wid, lease_ms))
        await each(self.workers, lambda wid: self.claim(wid, residents=[BASE]))

    async def beat(self, wid: WorkerId, lease_ms: int) -> None:
        """Renew one lease; 0 lets it end."""
        await self.queue.beat(wid, lease_ms=lease_ms, info=worker_info())

    async def join(self, residents: Sequence[AdapterVersion] = (), **told: Any) -> WorkerId:
        """One more worker."""
        wid = WorkerId(f"more:1:{uuid.uuid4().hex}")
        await self.queue.register(
            wid, lease_ms=SHORT_LEASE_MS, info=worker_info(**told), residents=residents
        )
        return wid

    async def claim(self, wid: WorkerId, **changes: Any) -> Claim:
        """Claim with room for 8 jobs of what the worker holds already, or as `changes` say."""
        room: dict[str, Any] = {"sequences": 8, "tokens": KV_TOKENS, "max_cold": 0}
        room |= {"steal_ms": NEVER_MS, "load_ms": NEVER_MS, "residents": []}
        return await self.queue.claim(wid, **{**room, **changes})

    async def busy(self) -> tuple[WorkerId, tuple[ClaimedJob, ...]]:
        """One more worker, with jobs of as many adapters as it has jobs."""
        wid = await self.join()
        residents = self.versions[len(self.hot) :][: 2 * AT_ONCE]
        return wid, (await self.claim(wid, sequences=AT_ONCE, residents=residents)).jobs

    async def publish(
        self, wid: WorkerId, jobs: Sequence[ClaimedJob], num_checkpoints: int = 0
    ) -> None:
        """Show a token of each job to several front ends."""
        shown = [_token(job) for job in jobs]
        events = {ApiId(f"{API}-{n}"): shown[n::NUM_APIS] for n in range(NUM_APIS)}
        epochs = {claimed.job.id: claimed.epoch for claimed in jobs}
        await self.queue.publish(wid, events, shown[:num_checkpoints], epochs=epochs)

    async def _register(self, number: int) -> None:
        held = [
            hot
            for index, hot in enumerate(self.hot)
            if (number - HOLDERS * index) % self.sizes.workers < HOLDERS
        ]
        await self.queue.register(
            self.workers[number], lease_ms=LEASE_MS, info=worker_info(), residents=[BASE, *held]
        )

    async def _put_number(self, number: int) -> None:
        await self.put(self.versions[number % len(self.versions)])


async def each(items: Iterable[T], call: Callable[[T], Awaitable[object]]) -> None:
    """Call for each item, `AT_ONCE` at a time."""
    left = iter(items)
    while some := list(islice(left, AT_ONCE)):
        await asyncio.gather(*map(call, some))


def version(number: int, round_: int = 0) -> AdapterVersion:
    """The version that an adapter has after so many replacements."""
    return AdapterVersion(f"a{number}@{(round_ << 32) + number:012x}")


def adapter(number: int, round_: int = 0) -> Adapter:
    """An adapter that nobody reads."""
    return Adapter(
        name=f"a{number}",
        version=version(number, round_),
        digest=f"{number:064x}",
        weights_digest=f"{number:064x}",
        source=f"/adapters/a{number}",
        rank=16,
        num_bytes=10_000_000,
        created_s=int(time.time()),
    )


def base_model(digest: str) -> BaseModel:
    """A base model that nobody reads."""
    return BaseModel(
        name="bench",
        version=AdapterVersion(f"bench@{digest}"),
        max_model_len=8192,
        source="/bench",
        created_s=int(time.time()),
    )


def worker_info(*, kv_tokens: int = KV_TOKENS) -> WorkerInfo:
    """What a worker tells that has room for `AT_ONCE` jobs."""
    return WorkerInfo(
        model="bench",
        device="cpu",
        dtype="none",
        version="0",
        max_num_seqs=AT_ONCE,
        kv_tokens=kv_tokens,
    )


def _job(version: AdapterVersion, **changes: Any) -> Job:
    fields: dict[str, Any] = {
        "id": JobId(uuid.uuid4().hex),
        "endpoint": Endpoint.COMPLETIONS,
        "model": version,
        "version": version,
        "sampling": SamplingParams(seed=0, max_tokens=1),
        "created_s": int(time.time()),
        "deadline_ms": NEVER_MS,
        "cost": 10,
        "reply_to": API,
        "prompts": ("word " * 16,),
    }
    return Job(**{**fields, **changes})


def _token(claimed: ClaimedJob) -> Tokens:
    return Tokens(job=claimed.job.id, try_=claimed.try_, choice=0, index=0, ids=(1,), text=" word")
