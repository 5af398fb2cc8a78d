"""Options with which the jobs of requests are enqueued."""

from typing import Any

import pytest

from api.requests.request_headers import RequestHeaders, enqueue_options
from api.requests.translate import parse_completion
from shared.protocol.enqueue import EnqueueOptions, IdempotencyKey

BODY = {"model": "m", "prompt": "hi", "user": "é"}
KEYED = RequestHeaders(idempotency_key="k")
PATH = "/v1/completions"


def options(
    body: dict[str, Any] = BODY, headers: RequestHeaders = KEYED, path: str = PATH
) -> EnqueueOptions:
    return enqueue_options(headers, parse_completion(body), path=path, raw=body, weight=2.5)


def key(body: dict[str, Any] = BODY, path: str = PATH) -> IdempotencyKey:
    idempotency = options(body, path=path).idempotency
    assert idempotency is not None
    return idempotency


def test_a_request_without_a_key_has_a_job_of_its_own() -> None:
    assert options(headers=RequestHeaders()) == EnqueueOptions(weight=2.5)


def test_the_order_of_fields_does_not_change_the_digest_of_a_body() -> None:
    assert key() == key(dict(reversed(BODY.items())))
    assert key().key == "k"


@pytest.mark.parametrize("change", [{"user": "e"}, {"stream": True}, {"n": 1}, {"prompt": ["hi"]}])
def test_every_field_changes_the_digest_of_a_body(change: dict[str, Any]) -> None:
    assert key({**BODY, **change}).body_digest != key().body_digest


def test_the_endpoint_changes_the_digest() -> None:
    assert key(path="/v1/chat/completions").body_digest != key().body_digest


@pytest.mark.parametrize(
    ("headers", "background", "keeps_running"),
    [
        (RequestHeaders(), None, False),
        (RequestHeaders(), False, False),
        (RequestHeaders(), True, True),
        (RequestHeaders(is_continued=True), None, True),
    ],
)
def test_a_job_keeps_running_in_the_background_or_if_the_client_says_so(
    headers: RequestHeaders, background: bool | None, keeps_running: bool
) -> None:
    made = options({**BODY, "background": background}, headers)
    assert made.keeps_running is keeps_running
