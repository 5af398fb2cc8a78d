"""Announces the ends of batches to a URL of the operator.

Calls are signed as in version 1 of the Standard Webhooks specification, like those of OpenAI.
"""

import base64
import binascii
import hashlib
import hmac
import random
import time

import httpx
import orjson
import structlog

from shared.errors import SettingsError
from shared.settings import ControlSettings
from shared.store.batches.batch_ends import BatchEnd, BatchEnds

MAX_CALLS = 20
"""Maximum number of ends that one task announces."""
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

    async def announce(self, ends: BatchEnds) -> None:
        """Announce the ends that are due. A call that fails is repeated later, for three days."""
        now_s = time.time()
        due = await ends.due(now_s, limit=MAX_CALLS)
        if not due:
            return
        async with httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False) as client:
            for end in due:
                if await self._call(client, end):
                    await ends.forget(end)
                elif now_s - end.ended_s > GIVE_UP_S:
                    log.error("webhook_given_up", batch_id=end.batch)
                    await ends.forget(end)
                else:
                    await ends.delay(end, now_s + _pause_s(now_s - end.ended_s))

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


def _pause_s(age_s: float) -> float:
    """Return the seconds until the next try, which grow with the age of the event."""
    return min(MAX_RETRY_S, max(FIRST_RETRY_S, age_s)) * random.uniform(1, 1.25)
