"""Hands the ends of batches over to arq, which calls the webhook and repeats failed calls."""

import time
from typing import Any

from arq.connections import ArqRedis
from arq.worker import Function, func

from ops.control.batches.webhook import GIVE_UP_S, TIMEOUT_S, Webhook
from shared.store.batches.batch_ends import BatchEnd, BatchEnds

MAX_HANDED_OVER = 20
"""Maximum number of ends that one task hands over."""
AGAIN_S = 600.0
"""Seconds until an end is handed over again that wasn't announced, as arq may have lost it."""
DAY_S = 86_400
MAX_TRIES = 1_000_000
"""More than all calls and waits for a place in three days."""


class Announcements:
    """Ends of batches that a webhook announces."""

    def __init__(self, webhook: Webhook, ends: BatchEnds, arq: ArqRedis) -> None:
        self._webhook = webhook
        self._ends = ends
        self._arq = arq

    def function(self) -> Function:
        """Return the arq function of a call."""
        return func(
            self._call,
            name="call_webhook",
            timeout=2 * TIMEOUT_S,
            max_tries=MAX_TRIES,
            keep_result=0,
        )

    async def start(self) -> None:
        """Hand over the ends that are due. arq ignores those that it has."""
        now_s = time.time()
        for end in await self._ends.due(now_s, limit=MAX_HANDED_OVER):
            args = {"_job_id": f"webhook:{end.member}", "_expires": GIVE_UP_S + DAY_S}
            await self._arq.enqueue_job("call_webhook", end.member, **args)
            await self._ends.delay(end, now_s + AGAIN_S)

    async def _call(self, ctx: dict[str, Any], member: str) -> None:
        end = BatchEnd.of(member)
        await self._webhook.call(end, ctx["job_try"])
        await self._ends.forget(end)
