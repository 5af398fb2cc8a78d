"""Announcements of the ends of batches, received by a real server."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator

import pytest
from arq import Retry
from pydantic import SecretStr
from threaded_server import LocalServer, QuietHandler, running

from ops.control.batches.webhook import Webhook
from shared.errors import SettingsError
from shared.protocol.ids import BatchId
from shared.settings import ControlSettings
from shared.store.batches.batch_ends import BatchEnd
from shared.store.batches.records import BatchStatus

KEY = b"0123456789abcdef"
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"


class Receiver(LocalServer):
    """Records calls, and answers with `status`."""

    def __init__(self) -> None:
        super().__init__(Handler)
        self.calls: list[tuple[dict[str, str], bytes]] = []
        self.status = 200


class Handler(QuietHandler):
    server: Receiver

    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.calls.append((headers, self.read_body()))
        self.reply(self.server.status)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running(Receiver()) as receiver:
        yield receiver


def webhook(url: str, secret: str = SECRET) -> Webhook:
    hook = Webhook.of(ControlSettings(webhook_url=url, webhook_secret=SecretStr(secret)))
    assert hook is not None
    return hook


def an_end(age_s: int = 0) -> BatchEnd:
    return BatchEnd(BatchId("batch_1"), BatchStatus.COMPLETED, int(time.time()) - age_s)


async def test_the_call_is_signed(receiver: Receiver) -> None:
    await webhook(f"{receiver.url}/hook").call(an_end(), 1)
    ((headers, body),) = receiver.calls
    event = json.loads(body)
    assert (event["type"], event["data"]) == ("batch.completed", {"id": "batch_1"})
    signed = b".".join(
        (headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body)
    )
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


@pytest.mark.parametrize(("num_tries", "least_s", "most_s"), [(1, 10, 12.5), (40, 3600, 4500)])
async def test_a_failed_call_is_repeated_ever_later(
    receiver: Receiver, num_tries: int, least_s: float, most_s: float
) -> None:
    receiver.status = 500
    with pytest.raises(Retry) as caught:
        await webhook(receiver.url).call(an_end(), num_tries)
    assert least_s * 1000 <= (caught.value.defer_score or 0) <= most_s * 1000


async def test_a_url_that_never_answers_is_given_up(receiver: Receiver) -> None:
    receiver.status = 500
    await webhook(receiver.url).call(an_end(age_s=4 * 86_400), 50)
    assert len(receiver.calls) == 1


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", f"{SECRET}!", SECRET[6:]])
def test_a_bad_secret_is_refused_without_showing_it(secret: str) -> None:
    with pytest.raises(SettingsError) as caught:
        webhook("http://127.0.0.1:1", secret)
    assert len(secret) < 8 or secret not in str(caught.value)


def test_no_url_means_no_webhook() -> None:
    assert Webhook.of(ControlSettings()) is None
