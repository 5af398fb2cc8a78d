"""Kills workers while clients wait, and compares the ledger with the clients' answers."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from ops.lab.hostile.limit_pool import CHAT, LimitedClient, LimitPool, chat, connected, unfinished
from shared.store.access.ledger import Used
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

CLIENTS = 48
MAX_TOKENS = 300
CANCELLED_SHARE = 0.1
KILL_EVERY_S = 4.0
END_TIMEOUT_S = 180.0
RETRY_S = 0.3
LIMITS = {"requests_per_day": 1_000_000, "tokens_per_day": 1_000_000_000}

Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerResult:
    """Sums of the ledger and of the answers. Can be stored as JSON."""

    kills: int
    moved: int
    """Number of times that a job was queued again because its worker died."""
    jobs: int
    without_usage: int
    """Number of jobs that ended while they waited, some of them after their worker had died.

    The ledger counts none of their tokens. The key's limit counts their published tokens.
    """
    answers: int
    """Number of distinct jobs whose answers clients got."""
    ledger: Used
    usage: Used
    """Sum of the usage that the jobs report."""
    counted_tokens: int
    """Number of tokens that were charged to the key's limit."""
    reserved_tokens: int
    """Number of tokens that the key's limit still reserves for unfinished jobs."""
    differing_answers: int
    """Number of answers that state another usage than their job."""


class LedgerRun:
    """Sends requests while workers are killed."""

    def __init__(self, pool: LimitPool, redis: Redis, client: LimitedClient) -> None:
        self._pool = pool
        self._redis = redis
        self._client = client
        self._has_ended = False
        self._seen: dict[str, dict[str, Any]] = {}
        """Usage that each answer states, by job."""

    async def run(self, kills: int, report: Report) -> LedgerResult:
        """Kill workers while clients wait for answers, and compare the sums at the end."""
        await self._client.begin(**LIMITS)
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._send_all(random.Random(number), number))
            for number in range(kills):
                report("kills", number, kills)
                await asyncio.sleep(KILL_EVERY_S)
                self._pool.kill_worker()
            self._has_ended = True
        report("kills", kills, kills)
        return await self._result()

    async def _send_all(self, choose: random.Random, number: int) -> None:
        num_sent = 0
        while not self._has_ended:
            num_sent += 1
            key = {"Idempotency-Key": f"{number}-{num_sent}"}
            body = chat(max_tokens=choose.randint(1, MAX_TOKENS))
            if choose.random() < CANCELLED_SHARE:
                await self._cancelled(body, key, choose)
            else:
                await self._answered(body, key)

    async def _answered(self, body: dict[str, Any], key: dict[str, str]) -> None:
        """Send a request until it is answered."""
        end = time.monotonic() + END_TIMEOUT_S
        while time.monotonic() < end:
            try:
                reply = await self._client.http.post(CHAT, json=body, headers=key)
            except httpx.HTTPError:
                continue
            if reply.status_code == 200:
                self._seen[reply.headers["x-lorikeet-job"]] = reply.json()["usage"]
                return
            await asyncio.sleep(RETRY_S)
        raise TimeoutError("a request isn't answered")

    async def _cancelled(
        self, body: dict[str, Any], key: dict[str, str], choose: random.Random
    ) -> None:
        """Start a job, and cancel it while it runs."""
        reply = await self._client.http.post(CHAT, json={**body, "background": True}, headers=key)
        if reply.is_success:
            await asyncio.sleep(choose.random())
            await self._client.http.post(f"/v1/jobs/{reply.json()['id']}/cancel")

    async def _result(self) -> LedgerResult:
        end = time.monotonic() + END_TIMEOUT_S
        while unfinished(jobs := await self._client.jobs()):
            if time.monotonic() > end:
                raise TimeoutError("jobs don't end")
            await asyncio.sleep(RETRY_S)
        usage_of = {job["id"]: job["usage"] for job in jobs}
        keys = Keys("main")
        fields = ["day_tokens", "reserved"]
        rate = await self._redis.hmget(keys.rate(self._client.key_id), fields)  # type: ignore[misc]
        counted, reserved = (int(each or 0) for each in rate)
        moved = await self._redis.hget(keys.counters, "retried")  # type: ignore[misc]
        return LedgerResult(
            kills=self._pool.num_kills,
            moved=int(moved or 0),
            jobs=len(jobs),
            without_usage=sum(usage is None for usage in usage_of.values()),
            answers=len(self._seen),
            ledger=await self._client.ledger(),
            usage=_sum(usage_of.values()),
            counted_tokens=counted,
            reserved_tokens=reserved,
            differing_answers=sum(usage_of.get(job) != used for job, used in self._seen.items()),
        )


def _sum(usages: Any) -> Used:
    total = Used()
    for usage in usages:
        found = usage or {}
        details = found.get("prompt_tokens_details") or {}
        total += Used(
            1,
            prompt_tokens=found.get("prompt_tokens", 0),
            cached_tokens=details.get("cached_tokens", 0),
            completion_tokens=found.get("completion_tokens", 0),
        )
    return total


async def ledger_run(pool: LimitPool, kills: int, report: Report) -> LedgerResult:
    """Kill workers of a pool that serves many clients, and compare its ledger with the answers."""
    redis, client = connected(pool, "steady")
    try:
        return await LedgerRun(pool, redis, client).run(kills, report)
    finally:
        await client.http.aclose()
        await redis.aclose()
