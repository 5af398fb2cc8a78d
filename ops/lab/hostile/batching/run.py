"""One run of tenants' batches, with or without a hostile tenant, while control is killed."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from ops.lab.hostile.batch_inputs import ADAPTERS, FLAKY, HostileKind, custom_ids, requests
from ops.lab.hostile.batching.client import ENDED, BatchClient, num_done, statuses
from ops.lab.hostile.pool import ADMIN, HostilePool
from ops.lab.hostile.pool_size import PoolSize, pool_size
from ops.lab.hostile.source import Source
from ops.lab.server_processes import ServerFailed
from shared.protocol.access.rights import Access, KeyLimits, Scope
from shared.store.access.key_store import KeyStore
from shared.store.redis.connection import connect
from shared.store.redis.keys import Keys

HOSTILE = "hostile"
REQUESTS_PER_MINUTE = 60
"""Request limit of the key that the hostile tenant uses for some of its batches."""
POLL_S = 1.0
END_TIMEOUT_S = 1800.0
SETTLE_TIMEOUT_S = 120.0
HUGE_METADATA = {str(number): "x" * 20_000 for number in range(50)}

Report = Callable[[str, int, int], None]
"""Function that shows progress.

Its arguments are a description, the number of finished steps and the number of all steps.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Numbers of tenants, batches, lines and kills of a run."""

    tenants: int
    batches: int
    """Number of batches of all tenants together, including the hostile tenant's."""
    lines: int
    """Number of requests of each batch, one per line of its input file."""
    kills: int
    waits: bool
    """Whether to wait at the end until the pool has deleted data that it keeps for a minute."""

    @property
    def per_tenant(self) -> int:
        """Number of batches of one tenant."""
        return self.batches // self.tenants


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """Results of one run. Can be stored as JSON."""

    has_hostile: bool
    seconds: float
    """Seconds from the first batch to the end of the last batch of the tenants that aren't hostile.
    """
    hostile_seconds: float
    """Seconds from the first batch to the end of the last hostile batch; 0 if none is hostile."""
    num_lines: int
    """Number of requests in the batches of the tenants that aren't hostile."""
    num_kills: int
    statuses: dict[str, int]
    hostile_statuses: dict[str, int]
    hostile_errors: dict[str, int]
    """Number of errors of the hostile tenant's lines and batches, by code."""
    refusals_of_source: int
    log_lines: int
    """Number of lines that the control processes have logged."""
    before: PoolSize
    after: PoolSize
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Hostile:
    statuses: dict[str, int]
    errors: dict[str, int]


_NONE = _Hostile({}, {})


class Run:
    """One run with a pool."""

    def __init__(
        self,
        pool: HostilePool,
        source: Source,
        sizes: Sizes,
        kinds: Sequence[HostileKind],
        report: Report,
    ) -> None:
        self._pool = pool
        self._source = source
        self._sizes = sizes
        self._kinds = kinds
        self._report = report
        self._redis = connect(pool.redis_url)
        self._keys = Keys("main")
        self._content = requests(ADAPTERS, sizes.lines)
        self._faults: list[str] = []

    async def run(self) -> RunResult:
        """Run all batches, check their results, and delete everything."""
        async with AsyncExitStack() as stack:
            clients = {
                tenant: await stack.enter_async_context(BatchClient(self._pool.url, key))
                for tenant, key in self._pool.keys.items()
            }
            stack.push_async_callback(self._redis.aclose)
            slow = await stack.enter_async_context(await self._slow_client())
            return await self._measure(clients, slow)

    async def _measure(self, clients: Mapping[str, BatchClient], slow: BatchClient) -> RunResult:
        others = {name: each for name, each in clients.items() if name not in (ADMIN, HOSTILE)}
        await self._warm_up(clients[ADMIN], [*others.values(), slow])
        before = await self._size()
        started_s = time.monotonic()
        inputs: dict[str, HostileKind] = {}
        if self._kinds:
            await clients[ADMIN].load_adapter(FLAKY, self._source.url)
            inputs = await self._create_hostile(clients[HOSTILE], slow)
        await asyncio.gather(*(self._create(client) for client in others.values()))
        await self._until_ended(others)
        seconds = time.monotonic() - started_s
        found = {name: await client.batches() for name, client in others.items()}
        for number, (name, batches) in enumerate(found.items()):
            self._report("checking results", number, len(found))
            await self._check(name, others[name], batches)
        hostile = await self._end_hostile(clients, inputs) if inputs else _NONE
        after = await self._clean([*others.values(), clients[HOSTILE]], before)
        return RunResult(
            has_hostile=bool(inputs),
            seconds=seconds,
            hostile_seconds=time.monotonic() - started_s if inputs else 0.0,
            num_lines=len(others) * self._sizes.per_tenant * self._sizes.lines,
            num_kills=self._pool.num_kills,
            statuses=_counts(each for batches in found.values() for each in statuses(batches)),
            hostile_statuses=hostile.statuses,
            hostile_errors=hostile.errors,
            refusals_of_source=self._source.num_refusals,
            log_lines=self._pool.control_log().count("\n"),
            before=before,
            after=after,
            faults=self._faults,
        )

    async def _end_hostile(
        self, clients: Mapping[str, BatchClient], inputs: Mapping[str, HostileKind]
    ) -> "_Hostile":
        """Wait for the ends of the hostile batches, and check their results."""
        client = clients[HOSTILE]
        await self._until_ended({HOSTILE: client}, kills=False)
        batches = await client.batches()
        errors = await self._check_hostile(client, batches, inputs)
        await clients[ADMIN].unload_adapter(FLAKY)
        return _Hostile(_counts(statuses(batches)), errors)

    async def _slow_client(self) -> BatchClient:
        """Return a client of the hostile tenant. Its key permits few requests per minute."""
        access = Access(tenant=HOSTILE, scopes=frozenset({Scope.INFERENCE}))
        limits = KeyLimits(requests_per_minute=REQUESTS_PER_MINUTE)
        _, secret = await KeyStore(self._redis, self._keys).create(access, limits)
        return BatchClient(self._pool.url, secret)

    async def _warm_up(self, admin: BatchClient, clients: Sequence[BatchClient]) -> None:
        """Run a batch of each tenant, so that lasting keys exist before the measurement."""
        await admin.load_adapter(FLAKY, self._source.url)
        await admin.unload_adapter(FLAKY)
        for client in clients:
            await client.create(await client.upload(requests(ADAPTERS, len(ADAPTERS))))
        for number, client in enumerate(clients):
            self._report("warming up", number, len(clients))
            await client.until_ended()
            await client.delete_all()

    async def _create(self, client: BatchClient) -> None:
        file_id = await client.upload(self._content)
        for _ in range(self._sizes.per_tenant):
            await client.create(file_id)

    async def _create_hostile(
        self, client: BatchClient, slow: BatchClient
    ) -> dict[str, HostileKind]:
        """Create the hostile batches, and return the kind of each, by id."""
        files = [await client.upload(kind.content) for kind in self._kinds]
        status = await client.status_of_bad_batch(files[0], HUGE_METADATA)
        self._expect(status == 400, f"huge metadata got the status {status}")
        created = {}
        for number in range(self._sizes.per_tenant):
            kind = self._kinds[number % len(self._kinds)]
            by = slow if kind.is_limited else client
            created[await by.create(files[number % len(files)])] = kind
        return created

    async def _until_ended(self, clients: Mapping[str, BatchClient], *, kills: bool = True) -> None:
        """Wait until all batches have ended.

        If `kills` is true, kill the control process meanwhile. The kills are evenly spaced over the
        lines.
        """
        num_lines = len(clients) * self._sizes.per_tenant * self._sizes.lines
        num_kills = self._sizes.kills if kills else 0
        end_s = time.monotonic() + END_TIMEOUT_S
        while time.monotonic() < end_s:
            found = await asyncio.gather(*(client.batches() for client in clients.values()))
            done = sum(map(num_done, found))
            who = "hostile lines" if HOSTILE in clients else "lines"
            self._report(f"{who}, {self._pool.num_kills} kills", done, num_lines)
            if self._pool.control_has_died():
                raise ServerFailed("control has ended by itself:\n" + self._pool.control_log())
            if {status for batches in found for status in statuses(batches)} <= ENDED:
                return
            due = done * (num_kills + 1) // max(1, num_lines)
            if self._pool.num_kills < min(due, num_kills):
                self._pool.kill_control()
            await asyncio.sleep(POLL_S)
        self._faults.append(f"some batches hadn't ended after {END_TIMEOUT_S} s")

    async def _check(
        self, tenant: str, client: BatchClient, batches: Mapping[str, Mapping[str, Any]]
    ) -> None:
        expected = custom_ids(self._content)
        number = self._sizes.per_tenant
        self._expect(len(batches) == number, f"{tenant} has {len(batches)} of {number} batches")
        for batch_id, batch in batches.items():
            rows = await client.rows(batch["output_file_id"])
            ids = sorted(row["custom_id"] for row in rows)
            self._expect(
                batch["status"] == "completed" and batch["error_file_id"] is None,
                f"{batch_id} of {tenant} is {batch['status']}: {batch['errors']}",
            )
            self._expect(ids == expected, f"{batch_id} has {len(ids)} results")

    async def _check_hostile(
        self,
        client: BatchClient,
        batches: Mapping[str, Mapping[str, Any]],
        inputs: Mapping[str, HostileKind],
    ) -> dict[str, int]:
        """Check that every hostile line has one result or a named error; return the errors."""
        codes: list[str] = []
        for batch_id, kind in inputs.items():
            batch = batches[batch_id]
            if kind.fails_whole:
                errors = (batch["errors"] or {"data": []})["data"]
                codes += [error["code"] for error in errors]
                self._expect(batch["status"] == "failed" and errors, f"{batch_id} hasn't failed")
                continue
            answers = await client.rows(batch["output_file_id"])
            failures = await client.rows(batch["error_file_id"])
            ids = sorted(row["custom_id"] for row in [*answers, *failures])
            bodies = [row["response"]["body"] for row in failures]
            codes += [str(body["error"]["code"]) for body in bodies]
            self._expect(
                ids == custom_ids(kind.content),
                f"{batch_id} ({kind.name}, {batch['status']}) has {len(ids)} results",
            )
        return _counts(codes)

    async def _clean(self, clients: Sequence[BatchClient], before: PoolSize) -> PoolSize:
        """Delete everything, and wait until the pool is as small as before."""
        await asyncio.gather(*(client.delete_all() for client in clients))
        end_s = time.monotonic() + SETTLE_TIMEOUT_S
        while (excess := (size := await self._size()).excess_over(before)) and (
            time.monotonic() < end_s
        ):
            self._report("waiting for deletions", len(excess), len(excess) + 1)
            await asyncio.sleep(POLL_S)
        self._faults += excess
        unfinished = await self._redis.zcard(self._keys.due)
        self._expect(unfinished == 0, f"{unfinished} jobs are unfinished")
        return size

    async def _size(self) -> PoolSize:
        files, waits = self._pool.files, self._sizes.waits
        return await pool_size(self._redis, self._keys.prefix, files, waits=waits)

    def _expect(self, is_true: bool, fault: str) -> None:
        if not is_true:
            self._faults.append(fault)


def _counts(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))
