"""Parsing and size limit of request bodies."""

from collections.abc import AsyncIterator

import httpx
import pytest

from api.http.body import parse_json_object
from shared.errors import ErrorCode, JobFailed

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nope",
        b'{"a": 1,}',
        b"\xff\xfe",
        b'{"a": "\\ud800"}',
        b'{"a": "\\ud800", "b": NaN}',
        b'{"a": "NaN \\ud800"}',
        b'{"a": "\\ud800", "b": 1e999}',
        '{"a": 1}'.encode("utf-16"),
        '{"a": NaN}'.encode("utf-16"),
        b"[" * 100_000,
        b"NaN" + b"[" * 100_000,
        b"[]",
        b"1",
        b"null",
        b'"text"',
    ],
)
def test_only_json_objects_are_accepted(body: bytes) -> None:
    with pytest.raises(JobFailed) as caught:
        parse_json_object(body)
    assert caught.value.error.code is ErrorCode.INVALID_VALUE
    assert "JSON" in caught.value.error.message


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_are_not_finite_are_parsed(number: str) -> None:
    body = f'{{"temperature": {number}}}'.encode()
    assert parse_json_object(body).keys() == {"temperature"}


def test_a_json_object_is_parsed() -> None:
    assert parse_json_object('{"ä": [1, "x"]}'.encode()) == {"ä": [1, "x"]}


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 9000])
async def test_a_body_that_is_not_a_json_object_is_a_400(
    direct: httpx.AsyncClient, body: bytes
) -> None:
    response = await direct.post(CHAT, content=body)
    assert response.status_code == 400
    assert "JSON" in response.json()["error"]["message"]


async def test_a_body_over_the_limit_is_a_413(http: httpx.AsyncClient) -> None:
    response = await http.post(CHAT, content=b"x" * 10_001)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"


async def test_a_body_over_the_limit_without_content_length_is_a_413(
    http: httpx.AsyncClient,
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * 1000

    response = await http.post(CHAT, content=chunks())
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"


async def test_a_body_at_the_limit_is_accepted(http: httpx.AsyncClient) -> None:
    response = await http.post(CHAT, content=b" " * 10_000)
    assert response.status_code == 400
