"""Announces the ends of batches to a URL of the operator.

Calls are signed as in version 1 of the Standard Webhooks specification, like those of OpenAI.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import random
import time

import httpx
import orjson
import structlog
from arq import Retry

from shared.errors import SettingsError
from shared.settings import ControlSettings
from shared.store.batches.batch_ends import BatchEnd

MAX_CALLS = 8
"""Maximum number of simultaneous calls of a control process."""
BUSY_S = 0.5, 2.0
"""Seconds until a call is tried again that found no place, at least and at most."""
TIMEOUT_S = 10.0
FIRST_RETRY_S, MAX_RETRY_S = 5.0, 3600.0
GIVE_UP_S = 3 * 86_400
PREFIX = "whsec_"
MIN_SECRET_BYTES = 16

log = structlog.get_logger()


class Webhook:
    """A URL that is called when a batch ends."""

    def __init__(self, url: str, secret: bytes) -> None:
        self._url = url
        self._secret = secret
        self._calls = asyncio.Semaphore(MAX_CALLS)

    @classmethod
    def of(cls, settings: ControlSettings) -> "Webhook | None":
        """Return the webhook of the settings, or None if they have none.

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
        """Announce the end of a batch.

        Raises:
            Retry: the call failed. It is repeated for three days, or other calls are to end first.
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
