"""Headers of requests for answers, and the options with which their jobs are enqueued."""

from typing import Any

import pytest
from starlette.datastructures import Headers

from api.requests.enqueue_options import enqueue_options
from api.requests.request_headers import RequestHeaders, read_request_headers
from api.requests.translate import parse_completion
from shared.errors import ErrorCode, JobFailed
from shared.protocol.enqueue import EnqueueOptions, IdempotencyKey


def read(**headers: str) -> RequestHeaders:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_request_headers(Headers(named), max_deadline_s=60)


def test_headers_are_read_and_defaults_apply_without_them() -> None:
    assert read() == RequestHeaders(idempotency_key=None, is_continued=False, deadline_s=None)
    for key in ("a", "!~", "x" * 255, "b3f1c2d4-0000-4000-8000-000000000000"):
        assert read(idempotency_key=key) == RequestHeaders(idempotency_key=key)
    for sent, seconds in (("60", 60), ("0.25", 0.25), ("007", 7)):
        assert read(x_lorikeet_deadline_s=sent).deadline_s == seconds


@pytest.mark.parametrize(
    ("sent", "is_strict"),
    [
        (["handling=strict"], True),
        (["Handling=STRICT"], True),
        (['respond-async, wait=10 , handling="strict"; a=b, x'], True),
        (["respond-async", "handling = strict"], True),
        (['note="a, handling=lenient, \\" b", handling=strict'], True),
        (["handling=strict, handling=lenient"], True),
        (["handling=lenient, handling=strict"], False),
        (["handling=lenient"], False),
        (['note="handling=strict, handling=strict"'], False),
        (["handling=strictly"], False),
        (["no-handling=strict"], False),
        (["handling"], False),
        (['", handling=strict'], True),
        (['"\\' * 4000], False),
        ([""], False),
        ([], False),
    ],
)
def test_a_client_can_prefer_strict_handling(sent: list[str], is_strict: bool) -> None:
    headers = Headers(raw=[(b"prefer", value.encode()) for value in sent])
    assert read_request_headers(headers, max_deadline_s=60).is_strict is is_strict


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("Idempotency-Key", bad) for bad in ("", "x" * 256, "a b", "é", "a\tb", "\x7f")),
        *(("X-Lorikeet-On-Disconnect", bad) for bad in ("", "keep", "Continue", "continue,cancel")),
        *(("X-Lorikeet-Deadline-S", bad) for bad in ("", "0", "0.0", "-1", "60.1", "nan")),
        *(
            ("X-Lorikeet-Deadline-S", bad)
            for bad in ("inf", "5 s", "²", "1_0", "+1", ".5", "9" * 99)
        ),
    ],
)
def test_an_invalid_header_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(JobFailed) as failed:
        read(**{name.replace("-", "_"): value})
    error = failed.value.error
    assert (error.code, error.param) == (ErrorCode.INVALID_VALUE, name)
    assert error.message.startswith(f"{name}: ")


def test_the_error_names_the_limit_of_deadlines() -> None:
    with pytest.raises(JobFailed, match=r"at most 60, .* --deadline-s"):
        read(x_lorikeet_deadline_s="61")


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


CHANGES: list[dict[str, Any]] = [{"user": "e"}, {"stream": True}, {"n": 1}, {"prompt": ["hi"]}]


def test_every_field_and_the_endpoint_but_not_the_order_of_fields_changes_the_digest() -> None:
    assert key() == key(dict(reversed(BODY.items())))
    assert key().key == "k"
    others = [key({**BODY, **change}) for change in CHANGES]
    for other in (*others, key(path="/v1/chat/completions")):
        assert other.body_digest != key().body_digest
