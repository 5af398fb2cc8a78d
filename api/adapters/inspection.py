"""Asks a worker to read an adapter, and another one if that one is silent or dies."""

import asyncio
import secrets
from collections.abc import Collection

from api.context import Context
from api.redis_guard import redis_guard
from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.ids import InspectionId, WorkerId
from shared.store.inspections import Findings, Inspection

TAKE_S = 5.0
"""How long a worker may leave a request in its mailbox."""
POLL_S = 1.0
"""Between two looks at whether it is alive."""
MAX_DEATHS = 2
"""Workers that may die while they read it: there may be a connection."""


async def inspect(context: Context, asked: Inspection) -> Findings:
    """What a worker finds.

    Raises:
        JobFailed: no worker is alive, or none has read it within the deadline.
        RedisUnavailable: Redis went away.
    """
    limit_s = context.settings.deadline_s
    try:
        async with asyncio.timeout(limit_s), context.inspecting:
            return await _ask_workers(context, asked)
    except TimeoutError:
        message = f"no worker has read {asked.source!r} within {limit_s:g} s; try again"
        raise JobFailed(JobError(code=ErrorCode.DEADLINE_EXCEEDED, message=message)) from None


async def _ask_workers(context: Context, asked: Inspection) -> Findings:
    tried: set[WorkerId] = set()
    deaths = 0
    while deaths < MAX_DEATHS:
        wid = await _pick(context, tried)
        if wid is None:
            raise _unavailable("no worker is alive that could read adapters; try again")
        tried.add(wid)
        reply = await _ask(context, wid, asked)
        if isinstance(reply, Findings):
            return reply
        deaths += reply
    raise _unavailable(f"{deaths} workers died while they read {asked.source!r}")


async def _pick(context: Context, tried: Collection[WorkerId]) -> WorkerId | None:
    """The live worker with the least to do."""
    async with redis_guard():
        workers = await context.queue.workers()
    alive = [w for w in workers if w.lease_left_ms > 0 and w.id not in tried]
    return min(alive, key=lambda w: w.running).id if alive else None


async def _ask(context: Context, wid: WorkerId, asked: Inspection) -> Findings | bool:
    """What the worker found; else whether it died over it, rather than not hearing of it."""
    inspections, inspection_id = context.inspections, InspectionId(secrets.token_hex(16))
    clock = asyncio.get_running_loop().time
    async with redis_guard():
        if not await inspections.ask(wid, inspection_id, asked):
            return False
    taken, patient_until_s = False, clock() + TAKE_S
    while True:
        reply = await inspections.next_reply(inspection_id, timeout_s=POLL_S)
        if isinstance(reply, Findings):
            return reply
        taken = taken or reply is True
        if not taken and clock() > patient_until_s:
            async with redis_guard():
                await inspections.withdraw(inspection_id)
            return False
        if reply is None and not await _is_alive(context, wid):
            return taken


async def _is_alive(context: Context, wid: WorkerId) -> bool:
    async with redis_guard():
        workers = await context.queue.workers()
    return any(w.id == wid and w.lease_left_ms > 0 for w in workers)


def _unavailable(message: str) -> JobFailed:
    return JobFailed(JobError(code=ErrorCode.UNAVAILABLE, message=message))
