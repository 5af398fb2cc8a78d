"""Requests that can't be served: each gets an error that names the field, and harms nobody."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from served_tiny import BASE
from servers import Server

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
USER = {"role": "user", "content": "hi"}
TOO_LONG = "a" * 200_000
NAN, INF = float("nan"), float("inf")

BAD_CHATS: list[tuple[dict[str, Any], str, str]] = [
    ({"messages": []}, "invalid_value", "messages"),
    ({"messages": "hi"}, "invalid_value", "messages"),
    ({"messages": None}, "invalid_value", "messages"),
    ({"messages": [{"role": "user"}]}, "invalid_value", "messages[0].content"),
    ({"messages": [USER, {"role": "king", "content": "hi"}]}, "invalid_value", "messages[1].role"),
    ({"messages": [{"role": "user", "content": 3}]}, "invalid_value", "messages[0].content"),
    ({"model": 3}, "invalid_value", "model"),
    ({"model": ""}, "invalid_value", "model"),
    ({"n": 0}, "invalid_value", "n"),
    ({"n": -1}, "invalid_value", "n"),
    ({"n": 10_000}, "invalid_value", "n"),
    ({"n": 1.5}, "invalid_value", "n"),
    ({"n": True}, "invalid_value", "n"),
    ({"temperature": NAN}, "invalid_value", "temperature"),
    ({"temperature": INF}, "invalid_value", "temperature"),
    ({"temperature": -0.1}, "invalid_value", "temperature"),
    ({"temperature": "hot"}, "invalid_value", "temperature"),
    ({"top_p": 0}, "invalid_value", "top_p"),
    ({"top_p": 1.1}, "invalid_value", "top_p"),
    ({"top_k": -2}, "invalid_value", "top_k"),
    ({"min_p": 2}, "invalid_value", "min_p"),
    ({"max_tokens": 0}, "invalid_value", "max_tokens"),
    ({"max_tokens": "many"}, "invalid_value", "max_tokens"),
    ({"max_tokens": 2**70}, "invalid_value", "max_tokens"),
    ({"max_tokens": 5, "max_completion_tokens": 5}, "invalid_value", "max_tokens"),
    ({"seed": "x"}, "invalid_value", "seed"),
    ({"seed": 2**63}, "invalid_value", "seed"),
    ({"stop": [""]}, "invalid_value", "stop"),
    ({"stop": 3}, "invalid_value", "stop"),
    ({"stop": ["a"] * 17}, "invalid_value", "stop"),
    ({"stream": "yes"}, "invalid_value", "stream"),
    ({"stream": False, "stream_options": {}}, "invalid_value", "stream_options"),
    ({"ignore_eos": 1}, "invalid_value", "ignore_eos"),
    ({"tools": [{"type": "function"}]}, "unsupported_parameter", "tools"),
    ({"logprobs": True}, "unsupported_parameter", "logprobs"),
    ({"temprature": 1}, "unknown_parameter", "temprature"),
    ({"messages": [{"role": "user", "content": TOO_LONG}]}, "context_length_exceeded", "messages"),
]
BAD_COMPLETIONS: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": ""}, "invalid_value", "prompt"),
    ({"prompt": []}, "invalid_value", "prompt"),
    ({"prompt": None}, "invalid_value", "prompt"),
    ({"prompt": ["a", "b"]}, "unsupported_parameter", "prompt"),
    ({"prompt": [1, -1]}, "invalid_value", "prompt"),
    ({"prompt": [7, 10_000]}, "invalid_value", "prompt[1]"),
    ({"prompt": [7, 2.5]}, "invalid_value", "prompt"),
    ({"prompt": TOO_LONG}, "context_length_exceeded", "prompt"),
    ({"prompt": [7] * 200_000}, "context_length_exceeded", "prompt"),
    ({"prompt": "abc", "max_tokens": 510}, "context_length_exceeded", "prompt"),
    ({"suffix": "x"}, "unsupported_parameter", "suffix"),
]
BAD_BODIES = [b"", b"{", b"[]", b'"text"', b"\xff\xfe", b"{" * 100_000]
GOOD_CHAT = {"model": BASE, "messages": [USER]}
GOOD_COMPLETION = {"model": BASE, "prompt": "hi"}
CASES = [
    pytest.param(url, {**good, **patch}, code, param, id=str(patch)[:50])
    for url, good, cases in (
        (CHAT, GOOD_CHAT, BAD_CHATS),
        (COMPLETIONS, GOOD_COMPLETION, BAD_COMPLETIONS),
    )
    for patch, code, param in cases
]


@pytest.fixture(scope="module", autouse=True)
def unharmed(server: Server) -> Iterator[None]:
    """After all these requests the same processes run, and answer."""
    before = server.pids()
    yield
    assert server.pids() == before
    reply = httpx.post(f"{server.url}{CHAT}", json={**GOOD_CHAT, "max_tokens": 3}, timeout=30)
    assert reply.status_code == 200


@pytest.mark.parametrize(("url", "body", "code", "param"), CASES)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_bad_field_is_named(
    http: httpx.AsyncClient, url: str, body: dict[str, Any], code: str, param: str, stream: bool
) -> None:
    sent = json.dumps({"stream": stream, **body})  # writes NaN, as Python's clients do
    reply = await http.post(url, content=sent)
    assert reply.status_code == 400, reply.text
    assert reply.headers["content-type"] == "application/json"
    error = reply.json()["error"]
    assert error["code"] == code
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert param.split("[")[0] in error["message"]
    assert len(error["message"]) < 500


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: str(body[:10]))
@pytest.mark.parametrize("url", [CHAT, COMPLETIONS])
async def test_a_body_that_is_no_object_is_refused(
    http: httpx.AsyncClient, url: str, body: bytes
) -> None:
    reply = await http.post(url, content=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "invalid_value"


@pytest.mark.parametrize("field", ["model", "messages"])
async def test_a_missing_field_is_named(http: httpx.AsyncClient, field: str) -> None:
    body = {name: value for name, value in GOOD_CHAT.items() if name != field}
    reply = await http.post(CHAT, json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == field


async def test_a_body_over_the_limit_is_refused(http: httpx.AsyncClient) -> None:
    reply = await http.post(CHAT, content=b"x" * 5_000_000)
    assert reply.status_code == 413
    assert reply.json()["error"]["code"] == "request_too_large"


async def test_an_unknown_url_and_a_wrong_method_get_openais_shape(
    http: httpx.AsyncClient,
) -> None:
    for reply, status in ((await http.get("/v1/nothing"), 404), (await http.get(CHAT), 405)):
        assert reply.status_code == status
        assert reply.json()["error"]["type"] == "invalid_request_error"
