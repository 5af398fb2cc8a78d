"""Announcements of the ends of batches, received by a real server."""

import base64
import hashlib
import hmac
import http.server
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from threaded_server import running

from ops.control.batches.webhook import Webhook
from shared.errors import SettingsError
from shared.settings import ControlSettings
from shared.store.batches.batch_ends import BatchEnd, BatchEnds
from shared.store.batches.records import BatchId, BatchStatus
from shared.store.connection import Redis
from shared.store.keys import Keys

KEY = b"0123456789abcdef"
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"


class Receiver:
    """Records calls, and answers with the next of `statuses`."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def url(receiver: Receiver) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.calls.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with running(server):
        yield f"http://127.0.0.1:{server.server_port}/hook"


def webhook(url: str, secret: str = SECRET) -> Webhook | None:
    return Webhook.of(ControlSettings(webhook_url=url, webhook_secret=SecretStr(secret)))


async def waiting(redis: Redis, keys: Keys, age_s: int = 0) -> BatchEnds:
    end = BatchEnd(BatchId("batch_1"), BatchStatus.COMPLETED, int(time.time()) - age_s)
    await redis.zadd(keys.webhooks, {end.member: 0})
    return BatchEnds(redis, keys)


async def test_the_call_is_signed(url: str, receiver: Receiver, redis: Redis, keys: Keys) -> None:
    ends, hook = await waiting(redis, keys), webhook(url)
    assert hook is not None
    await hook.announce(ends)
    ((headers, body),) = receiver.calls
    event = json.loads(body)
    assert (event["type"], event["data"]) == ("batch.completed", {"id": "batch_1"})
    signed = b".".join(
        (headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body)
    )
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    await hook.announce(ends)
    assert len(receiver.calls) == 1, "an end is announced once"


async def test_a_failed_call_is_repeated_later(
    url: str, receiver: Receiver, redis: Redis, keys: Keys
) -> None:
    ends, hook = await waiting(redis, keys), webhook(url)
    receiver.statuses = [500]
    assert hook is not None
    await hook.announce(ends)
    await hook.announce(ends)
    assert len(receiver.calls) == 1, "not at once"
    (end,) = await ends.due(time.time() + 60, limit=5)
    await ends.delay(end, 0)
    await hook.announce(ends)
    assert [json.loads(body)["id"] for _, body in receiver.calls] == ["evt_1", "evt_1"]
    assert await ends.due(time.time() + 10**6, limit=5) == []


async def test_a_url_that_never_answers_is_given_up(
    url: str, receiver: Receiver, redis: Redis, keys: Keys
) -> None:
    ends, hook = await waiting(redis, keys, age_s=4 * 86_400), webhook(url)
    receiver.statuses = [500]
    assert hook is not None
    await hook.announce(ends)
    assert await ends.due(time.time() + 10**6, limit=5) == []


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", f"{SECRET}!", SECRET[6:]])
def test_a_bad_secret_is_refused_without_showing_it(secret: str) -> None:
    with pytest.raises(SettingsError) as caught:
        webhook("http://127.0.0.1:1", secret)
    assert len(secret) < 8 or secret not in str(caught.value)


def test_no_url_means_no_webhook() -> None:
    assert Webhook.of(ControlSettings()) is None
