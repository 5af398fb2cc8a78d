"""A large pool without engines, and a client that measures the commands of the scripts."""

import hashlib
import re
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import adapter_versions
from queue_support import API, INFO, LIMITS, NEVER_MS, make_adapter, make_job, tokens

from shared.errors import LeaseLost
from shared.protocol.adapters import Adapter, BaseModel
from shared.protocol.enqueue import EnqueueOptions
from shared.protocol.ids import AdapterVersion, ApiId, WorkerId
from shared.protocol.jobs import ClaimedJob, Job
from shared.protocol.queue_replies import Claim
from shared.protocol.workers import WorkerInfo
from shared.store.adapters.registry import Registry
from shared.store.adapters.residency import ResidencyStore
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis, connect
from shared.store.redis.keys import Keys
from shared.store.redis.scripts import script_names, source

OWN_COMMANDS = 2
"""Number of commands that Redis counts for a call besides those of the script: EVALSHA and INFO."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    script: str
    situation: str
    commands: int


class Meter(Redis):
    """Redis client that measures the calls of scripts, which must not overlap."""

    def __init__(self, url: str) -> None:
        super().__init__(connection_pool=connect(url).connection_pool)
        self.auto_close_connection_pool = True  # no other client uses this connection pool
        self.calls: list[Call] = []
        self.situation = ""
        """What the next calls are measured in."""
        self._names = {
            hashlib.sha1(source(name).encode()).hexdigest(): name for name in script_names()
        }

    async def load_scripts(self) -> None:
        """Load all scripts into Redis, so that no measured call has to load one."""
        for name in script_names():
            await self.script_load(source(name))

    async def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Run a loaded script, and record the call's cost."""
        before = await self._num_commands()
        try:
            return await super().evalsha(sha, numkeys, *keys_and_args)  # type: ignore[misc]
        finally:
            commands = await self._num_commands() - before - OWN_COMMANDS
            name = self._names[sha]
            self.calls.append(Call(script=name, situation=self.situation, commands=commands))

    async def _num_commands(self) -> int:
        return int((await self.info("stats"))["total_commands_processed"])


def stated_bound(script: str) -> str:
    """Return the upper bound on the number of commands, as stated in a comment of the script.

    The bound has one of three forms: `40` (40 commands), `60 each` (60 commands per item), or
    `20 +` (20 commands and further terms). Returns an empty string if the script states no bound.
    """
    found = re.search(r"^-- At most ([\d,]+) commands(.*)", source(script), re.MULTILINE)
    if not found:
        return ""
    number, rest = found.groups()
    return number + (" each" if rest.startswith(" for each") else " +" if rest[:1] == "," else "")


T = TypeVar("T")

WORKERS, ADAPTERS = 20, 200
WAITING = 1000
"""Number of waiting jobs, spread over all adapters."""
BASE = AdapterVersion("bench@0123456789ab")
BATCH = 64
"""Number of a busy worker's jobs."""
HOT = 64
HOLDERS = 16
"""Number of holders of each hot version. Scripts examine at most this many holders of a version."""
SHORT_LEASE_MS = 20_000
LEASE_MS = 600_000
"""Lease that outlasts every measurement, so that no heartbeats are needed."""
MANY = 10**6
KV_TOKENS = 100_000
APIS = tuple(ApiId(f"{API}-{number}") for number in range(4))
"""Front ends to which `LargePool.publish` publishes."""


class LargePool:
    """A pool whose workers all hold the base model, with jobs that wait for many adapters.

    The first adapter versions are hot: `HOLDERS` workers hold each hot version. No worker holds any
    other adapter version.
    """

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.keys = Keys(f"bench-{uuid.uuid4().hex[:12]}")
        self.registry, self.residency = Registry(meter, self.keys), ResidencyStore(meter, self.keys)
        self.queue = Queue(meter, self.keys, residency=self.residency)
        self.workers = [WorkerId(f"host-{n}:1:{n:04x}{n:028x}") for n in range(WORKERS)]
        self.versions = [version(number) for number in range(ADAPTERS)]
        self.hot = self.versions[:HOT]

    async def fill(self) -> None:
        """Register adapters and workers, start a batch of jobs, and enqueue the waiting jobs."""
        await self.registry.set_base(base_model("1"))
        await each(range(ADAPTERS), self.load_adapter)
        await each(range(WORKERS), self._register)
        await each([BASE] * BATCH, self.put)
        await self.claim(self.workers[0], sequences=BATCH, residents=[BASE])
        for number in range(WAITING):
            await self.put(self.versions[number % len(self.versions)])

    async def load_adapter(self, number: int) -> None:
        """Register adapter `number` as an API client does."""
        await self.registry.load_adapter(adapter(number), replace=False)

    async def put(
        self,
        version: AdapterVersion,
        *,
        is_suspect: bool = False,
        key_id: str = "",
        **changes: Any,
    ) -> Job:
        """Enqueue a new job for `version`. `changes` override fields of the job.

        `key_id` names the API key whose limits apply.
        """
        job = make_job(version, **{"deadline_ms": NEVER_MS, **changes})
        limits = replace(
            LIMITS, max_waiting=MANY, max_waiting_adapter=MANY, max_waiting_tenant=MANY
        )
        options = EnqueueOptions(key_id=key_id)
        await self.queue.enqueue(job, limits, options=options, is_suspect=is_suspect)
        return job

    async def renew(self, lease_ms: int) -> None:
        """Renew the leases of all workers for `lease_ms`, and park the workers."""
        await each(self.workers, lambda worker: self.beat(worker, lease_ms))
        await each(self.workers, lambda worker: self.claim(worker, residents=[BASE]))

    async def beat(self, worker: WorkerId, lease_ms: int) -> None:
        """Renew the lease of `worker`. A lease of 0 ms expires at once."""
        await self.queue.beat(worker, lease_ms=lease_ms, info=worker_info())

    async def join(self, residents: Sequence[AdapterVersion] = (), **info: Any) -> WorkerId:
        """Register an additional worker that holds `residents`, and return its id."""
        while True:
            worker = WorkerId(f"more:1:{uuid.uuid4().hex}")
            with suppress(LeaseLost):  # another worker has the same short name
                await self.queue.register(
                    worker, lease_ms=SHORT_LEASE_MS, info=worker_info(**info), residents=residents
                )
                return worker

    async def claim(self, worker: WorkerId, **changes: Any) -> Claim:
        """Claim up to 8 jobs without loading or stealing versions.

        `changes` override these and other arguments of the claim.
        """
        arguments: dict[str, Any] = {"sequences": 8, "tokens": KV_TOKENS, "max_cold": 0}
        arguments |= {"steal_ms": NEVER_MS, "load_ms": NEVER_MS, "residents": []}
        return await self.queue.claim(worker, **{**arguments, **changes})

    async def busy(self) -> tuple[WorkerId, tuple[ClaimedJob, ...]]:
        """Register an additional worker that claims `BATCH` jobs of distinct adapters.

        Returns the worker's id and the claimed jobs.
        """
        worker = await self.join()
        residents = self.versions[len(self.hot) :][: 2 * BATCH]
        claim = await self.claim(worker, sequences=BATCH, residents=residents)
        return worker, claim.jobs

    async def publish(
        self, worker: WorkerId, jobs: Sequence[ClaimedJob], num_checkpoints: int = 0
    ) -> None:
        """Publish one token of each job in one call, spread over `APIS`.

        The call also checkpoints the first `num_checkpoints` jobs.
        """
        first = [tokens(claimed.job, 0, [1], " word", try_=claimed.try_) for claimed in jobs]
        events = {api: first[number :: len(APIS)] for number, api in enumerate(APIS)}
        epochs = {claimed.job.id: claimed.claim_epoch for claimed in jobs}
        await self.queue.publish(worker, events, first[:num_checkpoints], claim_epochs=epochs)

    async def _register(self, number: int) -> None:
        held = [
            hot
            for index, hot in enumerate(self.hot)
            if (number - HOLDERS * index) % WORKERS < HOLDERS
        ]
        await self.queue.register(
            self.workers[number], lease_ms=LEASE_MS, info=worker_info(), residents=[BASE, *held]
        )


async def each(items: Iterable[T], call: Callable[[T], Awaitable[object]]) -> None:
    for item in items:
        await call(item)


def version(number: int, generation: int = 0) -> AdapterVersion:
    """Return the version of adapter `number` after `generation` replacements."""
    return AdapterVersion(f"a{number}@{(generation << 32) + number:012x}")


def adapter(number: int, generation: int = 0) -> Adapter:
    """Return a registry entry for adapter `number`. Its source folder doesn't exist."""
    return make_adapter(version(number, generation))


def base_model(digest: str) -> BaseModel:
    """Return a registry entry for a base model. Its source folder doesn't exist."""
    return replace(adapter_versions.BASE, name="bench", version=AdapterVersion(f"bench@{digest}"))


def worker_info(**changes: Any) -> WorkerInfo:
    """Return the info reported by a worker with room for `BATCH` sequences."""
    return replace(INFO, max_num_seqs=BATCH, **{"kv_tokens": KV_TOKENS, **changes})
