"""Announces the ends of batches to a URL of the operator.

arq makes the calls, and repeats those that fail. All calls are signed as in version 1 of the
Standard Webhooks specification, like OpenAI's.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import random
import time
from typing import Any

import httpx
import orjson
import structlog
from arq import Retry
from arq.connections import ArqRedis
from arq.worker import Function, func

from shared.errors import SettingsError
from shared.settings import ControlSettings
from shared.store.batches.batch_ends import BatchEnd, BatchEnds

MAX_CALLS = 8
"""Maximum number of simultaneous calls of a control process."""
BUSY_S = 0.5, 2.0
"""If `MAX_CALLS` other calls are running, a call waits a random time in this range, in seconds."""
TIMEOUT_S = 10.0
FIRST_RETRY_S, MAX_RETRY_S = 5.0, 3600.0
GIVE_UP_S = 3 * 86_400
PREFIX = "whsec_"
MIN_SECRET_BYTES = 16
MAX_HANDED_OVER = 20
"""Maximum number of batch ends that one call of `start` hands over to arq."""
AGAIN_S = 600.0
"""Seconds after which a batch end that is still unannounced is handed over to arq again.

arq may have lost the first job.
"""
DAY_S = 86_400
MAX_TRIES = 1_000_000
"""Maximum number of tries of a call, which arq requires.

`GIVE_UP_S` ends the tries long before this number is reached.
"""

log = structlog.get_logger()


class Webhook:
    """A URL that is called when a batch ends."""

    def __init__(self, url: str, secret: bytes) -> None:
        self._url = url
        self._secret = secret
        self._calls = asyncio.Semaphore(MAX_CALLS)

    @classmethod
    def of(cls, settings: ControlSettings) -> "Webhook | None":
        """Return the webhook that the settings configure, or None if they configure none.

        Raises:
            SettingsError: the secret is missing or malformed. The message doesn't contain it.
        """
        if not settings.webhook_url:
            return None
        secret = settings.webhook_secret.get_secret_value() if settings.webhook_secret else ""
        try:
            key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            key = b""
        if not secret.startswith(PREFIX) or len(key) < MIN_SECRET_BYTES:
            raise SettingsError(
                f"--webhook-secret: must be {PREFIX} and the base64 of at least {MIN_SECRET_BYTES} "
                f"bytes; `echo {PREFIX}$(openssl rand -base64 24)` generates a good one"
            )
        return cls(settings.webhook_url, key)

    async def call(self, end: BatchEnd, num_tries: int) -> None:
        """Announce the end of a batch. A call that fails three days after the end isn't repeated.

        Raises:
            Retry: arq must repeat the call, because it failed or too many other calls are running.
        """
        if self._calls.locked():
            raise Retry(defer=random.uniform(*BUSY_S))
        async with self._calls, httpx.AsyncClient(timeout=TIMEOUT_S) as client:
            if await self._call(client, end):
                return
        if time.time() - end.ended_s > GIVE_UP_S:
            log.error("webhook_given_up", batch_id=end.batch)
            return
        pause_s = min(MAX_RETRY_S, FIRST_RETRY_S * 2.0 ** min(num_tries, 16))
        raise Retry(defer=pause_s * random.uniform(1, 1.25))

    async def _call(self, client: httpx.AsyncClient, end: BatchEnd) -> bool:
        event_id, now = f"evt_{end.batch.removeprefix('batch_')}", int(time.time())
        event = {
            "id": event_id,
            "object": "event",
            "created_at": end.ended_s,
            "type": f"batch.{end.status.value}",
            "data": {"id": end.batch},
        }
        body = orjson.dumps(event)
        headers = {
            "content-type": "application/json",
            "webhook-id": event_id,
            "webhook-timestamp": str(now),
            "webhook-signature": self._signature(event_id, now, body),
        }
        try:
            response = await client.post(self._url, content=body, headers=headers)
        except httpx.HTTPError as error:
            log.warning("webhook_failed", batch_id=end.batch, error=str(error) or repr(error))
            return False
        if not response.is_success:
            log.warning("webhook_failed", batch_id=end.batch, status=response.status_code)
        return response.is_success

    def _signature(self, event_id: str, timestamp: int, body: bytes) -> str:
        signed = b".".join((event_id.encode(), str(timestamp).encode(), body))
        digest = hmac.new(self._secret, signed, hashlib.sha256).digest()
        return f"v1,{base64.b64encode(digest).decode()}"


class Announcements:
    """Enqueues an arq job for each batch that has ended. The job calls the webhook."""

    def __init__(self, webhook: Webhook, ends: BatchEnds, arq: ArqRedis) -> None:
        self._webhook = webhook
        self._ends = ends
        self._arq = arq

    def function(self) -> Function:
        """Return the arq function that makes one call of the webhook."""
        return func(
            self._call,
            name="call_webhook",
            timeout=2 * TIMEOUT_S,
            max_tries=MAX_TRIES,
            keep_result=0,
        )

    async def start(self) -> None:
        """Enqueue a webhook call in arq for each ended batch whose announcement is due.

        arq ignores a call that is already enqueued.
        """
        now_s = time.time()
        for end in await self._ends.due(now_s, limit=MAX_HANDED_OVER):
            args = {"_job_id": f"webhook:{end.member}", "_expires": GIVE_UP_S + DAY_S}
            await self._arq.enqueue_job("call_webhook", end.member, **args)
            await self._ends.delay(end, now_s + AGAIN_S)

    async def _call(self, ctx: dict[str, Any], member: str) -> None:
        end = BatchEnd.of(member)
        await self._webhook.call(end, ctx["job_try"])
        await self._ends.forget(end)
