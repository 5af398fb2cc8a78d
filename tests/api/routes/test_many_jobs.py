"""Many jobs by filter: lists, cancellations, retries, and records of those that failed."""

import asyncio
import itertools
import math
import signal
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest
from api_processes import api_process, is_healthy
from api_support import ADAPTER, ScriptedWorker, error_of, free_port
from key_support import bearer, new_key
from queue_support import INFO, LIMITS, NEVER_MS, Actor, eventually, make_job

from shared.errors import ErrorCode
from shared.protocol.access.rights import Scope
from shared.protocol.ids import JobId
from shared.store.access.key_store import KeyStore
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

MODEL = ADAPTER.name
ROOMY = replace(
    LIMITS,
    max_waiting=10**6,
    max_waiting_adapter=10**6,
    max_waiting_tenant=10**6,
    retain_ms=3_600_000,
)


NUMBERS = itertools.count()


def next_id() -> JobId:
    """Return a larger id each time, since jobs of the same millisecond are sorted by id."""
    return JobId(f"{next(NUMBERS):08x}{uuid.uuid4().hex[:24]}")


class Failing:
    """Worker that fails each job that it claims."""

    def __init__(self, queue: Queue, redis: Redis, keys: Keys) -> None:
        self._queue = queue
        self._actor = Actor(queue, redis, keys, "failing", [ADAPTER.version])
        self._actor.info = replace(INFO, max_num_seqs=64)

    async def fail(self, number: int, code: ErrorCode, *, tenant: str = "default") -> list[JobId]:
        """Enqueue jobs of a tenant, fail them, and return their ids, oldest first."""
        await self._actor.register()
        jobs = [
            make_job(ADAPTER.version, id=next_id(), tenant=tenant, deadline_ms=NEVER_MS)
            for _ in range(number)
        ]
        for first in range(0, number, 64):
            for job in jobs[first : first + 64]:
                await self._queue.enqueue(job, ROOMY)
            for claimed in await self._actor.claim(sequences=64):
                await self._actor.fail(claimed, code)
        await self._queue.leave(self._actor.id)
        return [job.id for job in jobs]


@pytest.fixture
def failing(queue: Queue, redis: Redis, keys: Keys, registry: Registry) -> Failing:
    return Failing(queue, redis, keys)


async def ids_of(http: httpx.AsyncClient, headers: Any = None, **params: Any) -> list[str]:
    reply = await http.get("/v1/jobs", params={"limit": 100, **params}, headers=headers)
    assert reply.status_code == 200, reply.text
    return [job["id"] for job in reply.json()["data"]]


async def test_failed_jobs_are_listed_by_error_and_age_after_their_data_has_expired(
    http: httpx.AsyncClient, failing: Failing, redis: Redis, keys: Keys
) -> None:
    ours = await failing.fail(2, ErrorCode.INTERNAL)
    theirs = await failing.fail(1, ErrorCode.INVALID_VALUE)
    for job in (*ours, *theirs):
        await redis.delete(keys.job(job), keys.result(job))
    assert await ids_of(http) == [*theirs, *ours[::-1]]
    assert await ids_of(http, state="failed", error_code="internal_error") == ours[::-1]
    assert await ids_of(http, error_code="invalid_value", model=MODEL) == theirs
    assert await ids_of(http, min_age_s=100) == []
    assert await ids_of(http, max_age_s=100, model="other") == []
    (page,) = [await http.get("/v1/jobs", params={"limit": 1, "after": theirs[0]})]
    assert [job["id"] for job in page.json()["data"]] == ours[:0:-1]
    shown = (await http.get(f"/v1/jobs/{ours[0]}")).json()
    assert (shown["state"], shown["error"]["code"]) == ("failed", "internal_error")
    events = [moment["event"] for moment in shown["timeline"]]
    assert events == ["accepted", "queued", "claimed", "failed"]
    assert shown["timeline"][-1] == {
        "event": "failed",
        "at": shown["ended_at"],
        "worker": "failing",
        "reason": "internal_error",
    }
    assert "hello" not in str(await redis.get(keys.record(ours[0]))), "no prompt is kept"
    counts = (await http.get("/v1/pool")).json()["queue"]
    assert (counts["failed"], counts["failed_client"]) == (3, 1)
    await http.delete(f"/v1/jobs/{ours[0]}")
    assert error_of(await http.get(f"/v1/jobs/{ours[0]}"))[0] == 404
    assert await ids_of(http) == [*theirs, ours[1]]


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"min_age_s": "x"}, "min_age_s"),
        ({"max_age_s": "nan"}, "max_age_s"),
        ({"min_age_s": "-1"}, "min_age_s"),
        ({"error_code": "none"}, "error_code"),
    ],
)
async def test_an_invalid_filter_is_a_400(
    http: httpx.AsyncClient, params: dict[str, str], field: str
) -> None:
    status, _, param = error_of(await http.get("/v1/jobs", params=params))
    assert (status, param) == (400, field)
    status, _, param = error_of(await http.post("/v1/jobs/retry", json=params))
    assert (status, param) == (400, field)


async def test_only_operators_see_and_control_jobs_of_other_tenants(
    http: httpx.AsyncClient, failing: Failing, store: KeyStore
) -> None:
    (red,) = await failing.fail(1, ErrorCode.INTERNAL, tenant="red")
    (blue,) = await failing.fail(1, ErrorCode.INTERNAL, tenant="blue")
    secret, _ = await new_key(store, tenant="red")
    admin, _ = await new_key(store, *Scope, tenant="ops")
    mine, all_ = bearer(secret), bearer(admin)
    assert await ids_of(http, mine) == [red]
    assert await ids_of(http, mine, tenant="red") == [red]
    for tenant in ("blue", "*"):
        reply = await http.get("/v1/jobs", params={"tenant": tenant}, headers=mine)
        assert error_of(reply)[::2] == (403, "tenant")
        for action in ("cancel", "retry"):
            reply = await http.post(f"/v1/jobs/{action}", json={"tenant": tenant}, headers=mine)
            assert error_of(reply)[::2] == (403, "tenant")
    assert await ids_of(http, all_) == []
    assert await ids_of(http, all_, tenant="*") == [blue, red]
    assert await ids_of(http, all_, tenant="blue", state="failed") == [blue]
    assert error_of(await http.get(f"/v1/jobs/{blue}", headers=mine))[0] == 404
    seen = (await http.get(f"/v1/jobs/{blue}", headers=all_)).json()
    assert (seen["tenant"], seen["choices"]) == ("blue", None)
    retried = await http.post("/v1/jobs/retry", json={"tenant": "*"}, headers=all_)
    assert retried.json()["done"] == 2
    (new,) = await ids_of(http, mine, state="queued")
    assert (await http.get(f"/v1/jobs/{red}", headers=mine)).json()["retried_as"] == new


async def test_many_jobs_are_cancelled_by_filter_after_a_preview(
    http: httpx.AsyncClient, queue: Queue, worker: ScriptedWorker
) -> None:
    running = make_job(ADAPTER.version, reply_to="none")
    await queue.enqueue(running, ROOMY)
    await worker.take()
    waiting = [make_job(ADAPTER.version) for _ in range(3)]
    other = make_job("base@000000000000", model="tiny/base")
    for job in (*waiting, other):
        await queue.enqueue(job, ROOMY)
    preview = (await http.post("/v1/jobs/cancel", json={"model": MODEL, "dry_run": True})).json()
    assert (preview["matched"], preview["done"], preview["has_more"]) == (4, 0, False)
    done = (await http.post("/v1/jobs/cancel", json={"model": MODEL, "state": "queued"})).json()
    assert (done["matched"], done["done"], done["skipped"]) == (3, 3, 0)
    assert {job["id"] for job in done["jobs"]} == {job.id for job in waiting}
    assert set(await ids_of(http, state="queued,running")) == {running.id, other.id}
    assert (await http.post("/v1/jobs/cancel", json={})).json()["done"] == 2
    events = (await http.get(f"/v1/jobs/{running.id}")).json()["timeline"]
    assert events[-1]["event"] == "cancelling"


async def test_many_jobs_are_retried_once_whatever_is_repeated(
    http: httpx.AsyncClient, failing: Failing
) -> None:
    ours = await failing.fail(3, ErrorCode.INTERNAL)
    await failing.fail(1, ErrorCode.INVALID_VALUE)
    preview = (await http.post("/v1/jobs/retry", json={"dry_run": True})).json()
    assert (preview["matched"], preview["done"]) == (4, 0)
    replies = await asyncio.gather(*(http.post("/v1/jobs/retry", json={}) for _ in range(3)))
    assert sum(reply.json()["done"] for reply in replies) == 3
    new = [job["new_id"] for reply in replies for job in reply.json()["jobs"] if job["new_id"]]
    assert sorted(new) == sorted(await ids_of(http, state="queued"))
    again = (await http.post("/v1/jobs/retry", json={})).json()
    assert (again["matched"], again["done"], again["skipped"]) == (4, 0, 4)
    assert "retried before" in again["jobs"][0]["error"]
    assert error_of(await http.post(f"/v1/jobs/{ours[0]}/retry"))[0] == 409


NUM_FAILED = 10_000
LISTED_S = 0.2


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_ten_thousand_failed_jobs_are_listed_quickly_and_retried_once_over_a_kill(
    failing: Failing,
    queue: Queue,
    redis: Redis,
    keys: Keys,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("MAX_WAITING", "MAX_WAITING_ADAPTER", "MAX_WAITING_TENANT"):
        monkeypatch.setenv(f"LORIKEET_{name}", str(10 * NUM_FAILED))
    old = await failing.fail(NUM_FAILED - 10, ErrorCode.INTERNAL)
    rare = await failing.fail(10, ErrorCode.ADAPTER_UNAVAILABLE)
    port = free_port()
    with api_process(redis_url, keys.pool, port) as first:
        async for http in ready(port):
            for params in ({"error_code": "adapter_unavailable"}, {"state": "failed"}):
                assert await quickest(http, params) < LISTED_S
            assert await ids_of(http, error_code="adapter_unavailable") == rare[::-1]
            sent = asyncio.create_task(http.post("/v1/jobs/retry", json={}))
            await eventually(lambda: num_waiting(redis, keys, at_least=1000))
            first.send_signal(signal.SIGKILL)
            with pytest.raises(httpx.TransportError):
                await sent
    assert 0 < await num_waiting(redis, keys) < NUM_FAILED
    port = free_port()
    with api_process(redis_url, keys.pool, port):
        async for http in ready(port):
            done = (await http.post("/v1/jobs/retry", json={})).json()
    assert 0 < done["done"] < done["matched"] == NUM_FAILED
    assert await num_waiting(redis, keys) == NUM_FAILED
    new = await retried_as(redis, keys, [*old, *rare])
    assert len(set(new)) == NUM_FAILED
    waiting = await redis.zrange(keys.queue(ADAPTER.version), 0, -1)
    assert {raw.decode() for raw in waiting} == set(new)
    await check_byte_limit(queue, redis, keys, old)


async def check_byte_limit(queue: Queue, redis: Redis, keys: Keys, old: list[JobId]) -> None:
    """Check that sweeps delete the oldest records beyond a limit, and count them."""
    used = int(await redis.hget(keys.counters, "unanswered") or 0)  # type: ignore[misc]
    await redis.hset(keys.counters, "unanswered_bytes", str(used // 2))  # type: ignore[misc]
    await queue.reap()
    left, dropped = await redis.hmget(keys.counters, ["unanswered", "unanswered_dropped"])  # type: ignore[misc]
    assert int(left) <= used // 2
    num_left = await redis.zcard(keys.unanswered)
    assert num_left == NUM_FAILED - int(dropped)
    kept = await redis.exists(*(keys.record(job) for job in old[int(dropped) :]))
    assert kept == len(old) - int(dropped), "the oldest records are deleted first"
    assert not await redis.exists(*(keys.record(job) for job in old[: int(dropped)]))


async def ready(port: int) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a front end once it answers."""
    await eventually(lambda: asyncio.to_thread(is_healthy, port))
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False
    ) as http:
        yield http


async def quickest(http: httpx.AsyncClient, params: dict[str, str]) -> float:
    """Return the shortest time of some equal requests in seconds, since others use the machine."""
    shortest_s, num_left = math.inf, 20
    while shortest_s > LISTED_S and num_left:
        started = time.monotonic()
        assert (await http.get("/v1/jobs", params={**params, "limit": 100})).status_code == 200
        shortest_s, num_left = min(shortest_s, time.monotonic() - started), num_left - 1
    return shortest_s


async def num_waiting(redis: Redis, keys: Keys, *, at_least: int = 0) -> int:
    number = int(await redis.hget(keys.counters, "waiting") or 0)  # type: ignore[misc]
    return number if number >= at_least else 0


async def retried_as(redis: Redis, keys: Keys, jobs: list[JobId]) -> list[str]:
    """Return the new job of each job, from the records."""
    raw = await redis.mget([keys.record(job) for job in jobs])
    return [orjson.loads(each)["retried"] for each in raw]
