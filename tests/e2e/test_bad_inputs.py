"""Invalid requests get an error that says what to do, and affect no other request.

tests/api/http/test_validation.py has all fields. Here are each kind of text, and the errors that
only a worker finds.
"""

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
INVALID, UNSUPPORTED = "invalid_value", "unsupported_parameter"
LENGTH = "context_length_exceeded"


def messages(*items: Any) -> dict[str, Any]:
    return {"messages": list(items)}


def tool(**function: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f", **function}}]}


CALL = {"id": "a", "type": "web", "function": {"name": "f", "arguments": "{}"}}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
UNIQUE = {
    "type": "json_schema",
    "json_schema": {"name": "s", "schema": {"type": "array", "uniqueItems": True}},
}
BAD_CHATS: list[tuple[dict[str, Any], str, str, str]] = [
    # changes to a valid request, error code, field, and part of the message
    (messages(), INVALID, "messages", "can't be empty; send at least one message"),
    ({"messages": "hi"}, INVALID, "messages", "must be a valid list"),
    (messages({"role": "user"}), INVALID, "messages[0].content", "is required"),
    (messages({"role": "a b", "content": ""}), INVALID, "messages[0].role", "must match pattern"),
    (messages({**USER, "content": 3}), INVALID, "messages[0].content", "must be a string or a"),
    (messages({**USER, "content": [IMAGE]}), UNSUPPORTED, "messages[0].content[0].type", "send"),
    (
        *(messages({"role": "assistant", "tool_calls": [CALL]}), INVALID),
        *("messages[0].tool_calls[0].type", "must be 'function'"),
    ),
    ({"model": ""}, INVALID, "model", "at least 1 character"),
    ({"n": 0}, INVALID, "n", "greater than or equal to 1, not 0"),
    ({"n": 1.5}, INVALID, "n", "must be a valid integer"),
    ({"temperature": float("nan")}, INVALID, "temperature", "must be a finite number"),
    ({"temperature": "hot"}, INVALID, "temperature", 'must be a valid number, not "hot"'),
    ({"stop": [""]}, INVALID, "stop", "can't contain an empty string"),
    ({"stop": 3}, INVALID, "stop", "must be a string or a list of strings"),
    ({"stop": ["a"] * 17}, INVALID, "stop", "at most 16 strings, not 17"),
    ({"ignore_eos": 1}, INVALID, "ignore_eos", "must be a valid boolean"),
    ({"stream": False, "stream_options": {}}, INVALID, "stream_options", "with stream: true"),
    ({"tool_choice": "required"}, INVALID, "tool_choice", "only allowed with tools"),
    ({**tool(), "tool_choice": "g"}, INVALID, "tool_choice", 'must be "none", "auto"'),
    ({"reasoning_effort": "big"}, INVALID, "reasoning_effort", "must be 'none', 'minimal'"),
    ({"regex": "x"}, UNSUPPORTED, "regex", "send structured_outputs.regex instead"),
    ({"modalities": ["audio"]}, UNSUPPORTED, "modalities", 'send null or ["text"]'),
    # Only a worker finds these.
    ({"response_format": UNIQUE}, INVALID, "response_format", "uniqueItems"),
    (tool(), UNSUPPORTED, "tools", 'leave them out, or send tool_choice "none"'),
    (messages({**USER, "content": TOO_LONG}), LENGTH, "messages", "reduce the length"),
]
BAD_COMPLETIONS: list[tuple[dict[str, Any], str, str, str]] = [
    ({"prompt": [7, 2.5]}, INVALID, "prompt", "list of token ids"),
    ({"messages": [USER]}, UNSUPPORTED, "messages", "or POST /v1/chat/completions instead"),
    ({"prompt": [7, 10_000]}, INVALID, "prompt[1]", "outside the vocabulary"),
    ({"prompt": [[70, 71], [70, 9999]]}, INVALID, "prompt[1][1]", "outside the vocabulary"),
    ({"logit_bias": {"99999": 1}}, INVALID, "logit_bias[99999]", "outside the vocabulary"),
    ({"prompt": [7] * 200_000}, LENGTH, "prompt", "reduce the length"),
    ({"prompt": "abc", "max_tokens": 510}, LENGTH, "prompt", "reduce one of them"),
]
GOOD_CHAT = {"model": BASE, "messages": [USER]}
GOOD_COMPLETION = {"model": BASE, "prompt": "hi"}
BAD_FIELDS = [
    pytest.param(url, {**good, **patch}, code, param, says, id=str(patch)[:50])
    for url, good, cases in (
        (CHAT, GOOD_CHAT, BAD_CHATS),
        (COMPLETIONS, GOOD_COMPLETION, BAD_COMPLETIONS),
    )
    for patch, code, param, says in cases
]


@pytest.fixture(scope="module", autouse=True)
def server_survives(server: Server) -> Iterator[None]:
    """Check that the same processes still run and answer after all these requests."""
    before = server.pids()
    yield
    assert server.pids() == before
    reply = httpx.post(f"{server.url}{CHAT}", json={**GOOD_CHAT, "max_tokens": 3}, timeout=30)
    assert reply.status_code == 200


@pytest.mark.parametrize(("url", "body", "code", "param", "says"), BAD_FIELDS)
async def test_a_bad_field_is_named(
    http: httpx.AsyncClient, url: str, body: dict[str, Any], code: str, param: str, says: str
) -> None:
    for stream in (False, True):
        sent = json.dumps({"stream": stream, **body})  # json writes NaN, as Python's clients do
        reply = await http.post(url, content=sent)
        assert (reply.status_code, reply.json().keys()) == (400, {"error"})
        error = reply.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert (error["code"], error["param"]) == (code, param), error["message"]
        assert error["type"] == "invalid_request_error"
        assert says in error["message"]
        assert len(error["message"]) < 500
