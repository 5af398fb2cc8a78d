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

USER = {"role": "user", "content": "hi"}
CHAT = ("/v1/chat/completions", {"model": BASE, "messages": [USER]})
COMPLETION = ("/v1/completions", {"model": BASE, "prompt": "hi"})
TOO_LONG = "a" * 200_000
UNSUPPORTED, LENGTH = "unsupported_parameter", "context_length_exceeded"
Case = tuple[dict[str, Any], str, str]
"""Changes to a valid request, the field that the error names, and a part of its message."""


def messages(*items: Any) -> dict[str, Any]:
    return {"messages": list(items)}


TOOL = {"tools": [{"type": "function", "function": {"name": "f"}}]}
CALL = {"id": "a", "type": "web", "function": {"name": "f", "arguments": "{}"}}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
UNIQUE = {
    "type": "json_schema",
    "json_schema": {"name": "s", "schema": {"type": "array", "uniqueItems": True}},
}
UNKNOWN_TOKEN, TOO_LARGE = 2**31 - 1, 2**31
BAD_CHATS: list[Case] = [
    (messages(), "messages", "can't be empty; send at least one message"),
    ({"messages": "hi"}, "messages", "must be a valid list"),
    (messages({"role": "user"}), "messages[0].content", "is required"),
    (messages({"role": "a b", "content": ""}), "messages[0].role", "must match pattern"),
    (messages({**USER, "content": 3}), "messages[0].content", "must be a string or a"),
    (
        *(messages({"role": "assistant", "tool_calls": [CALL]}), "messages[0].tool_calls[0].type"),
        "must be 'function'",
    ),
    ({"model": ""}, "model", "at least 1 character"),
    ({"n": 0}, "n", "greater than or equal to 1, not 0"),
    ({"n": 1.5}, "n", "must be a valid integer"),
    ({"n": 129}, "n", ""),
    ({"temperature": float("nan")}, "temperature", "must be a finite number"),
    ({"temperature": "hot"}, "temperature", 'must be a valid number, not "hot"'),
    ({"stop": [""]}, "stop", "can't contain an empty string"),
    ({"stop": 3}, "stop", "must be a string or a list of strings"),
    ({"stop": ["a"] * 17}, "stop", "at most 16 strings, not 17"),
    ({"ignore_eos": 1}, "ignore_eos", "must be a valid boolean"),
    ({"stream": False, "stream_options": {}}, "stream_options", "with stream: true"),
    ({"tool_choice": "required"}, "tool_choice", "only allowed with tools"),
    ({**TOOL, "tool_choice": "g"}, "tool_choice", 'must be "none", "auto"'),
    ({"reasoning_effort": "big"}, "reasoning_effort", "must be 'none', 'minimal'"),
    ({"allowed_token_ids": []}, "allowed_token_ids", ""),
    ({"allowed_token_ids": [-1]}, "allowed_token_ids[0]", ""),
    ({"stop_token_ids": [TOO_LARGE]}, "stop_token_ids[0]", ""),
    ({"stop_token_ids": [True]}, "stop_token_ids[0]", ""),
    ({"bad_words": [" "]}, "bad_words[0]", ""),
    ({"bad_words": "x"}, "bad_words", ""),
    ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens", ""),
    ({"structured_outputs": {}}, "structured_outputs", ""),
    (
        *({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs.choice"),
        "",
    ),
    ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_choice", ""),
    ({"response_format": {"type": "json_object"}, "guided_regex": "a"}, "guided_regex", ""),
    ({"guided_regex": "a", "ignore_eos": True}, "ignore_eos", ""),
    ({"guided_regex": "a", "min_tokens": 2}, "min_tokens", ""),
    # Only a worker finds these.
    ({"allowed_token_ids": [5, UNKNOWN_TOKEN]}, "allowed_token_ids[1]", "outside the vocabulary"),
    ({"stop_token_ids": [5, UNKNOWN_TOKEN]}, "stop_token_ids[1]", "outside the vocabulary"),
    ({"response_format": UNIQUE}, "response_format", "uniqueItems"),
    ({"guided_regex": "("}, "guided_regex", ""),
    ({"guided_grammar": "start: nothing"}, "guided_grammar", ""),
    ({"guided_grammar": '{"grammars": []}'}, "guided_grammar", ""),
    ({"guided_json": "no"}, "guided_json", ""),
]
BAD_COMPLETIONS: list[Case] = [
    ({"prompt": [7, 2.5]}, "prompt", "list of token ids"),
    # Only a worker finds these.
    ({"prompt": [7, 10_000]}, "prompt[1]", "outside the vocabulary"),
    ({"prompt": [[70, 71], [70, 9999]]}, "prompt[1][1]", "outside the vocabulary"),
    ({"logit_bias": {"99999": 1}}, "logit_bias[99999]", "outside the vocabulary"),
]
UNSUPPORTED_FIELDS: list[Case] = [
    (messages({**USER, "content": [IMAGE]}), "messages[0].content[0].image_url.url", "send"),
    ({"return_logprob": True}, "return_logprob", "send logprobs instead"),
    ({"modalities": ["audio"]}, "modalities", 'send null or ["text"]'),
]
LISTED = "logprob_token_ids"
BAD_LOGPROBS: list[Case] = [
    *(({"prompt_logprobs": value}, "prompt_logprobs", "") for value in (-1, 21, True, "1")),
    ({LISTED: [5], "logprobs": None}, LISTED, ""),
    ({LISTED: [-1]}, f"{LISTED}[0]", ""),
    ({LISTED: [5, UNKNOWN_TOKEN]}, f"{LISTED}[1]", ""),
    ({LISTED: [5, TOO_LARGE]}, f"{LISTED}[1]", ""),
    ({LISTED: [5] * 129}, LISTED, ""),
    ({LISTED: 5}, LISTED, ""),
]
ALL: dict[str, tuple[tuple[str, dict[str, Any]], str, list[Case]]] = {
    "a chat": (CHAT, "invalid_value", BAD_CHATS),
    "a completion": (COMPLETION, "invalid_value", BAD_COMPLETIONS),
    "an unsupported field": (CHAT, UNSUPPORTED, UNSUPPORTED_FIELDS),
    "a field of another endpoint": (
        *(COMPLETION, UNSUPPORTED),
        [({"messages": [USER]}, "messages", "or POST /v1/chat/completions instead")],
    ),
    "a long chat": (
        *(CHAT, LENGTH),
        [(messages({**USER, "content": TOO_LONG}), "messages", "reduce the length")],
    ),
    "a long prompt": (
        *(COMPLETION, LENGTH),
        [
            ({"prompt": [7] * 200_000}, "prompt", "reduce the length"),
            ({"prompt": "abc", "max_tokens": 510}, "prompt", "reduce one of them"),
        ],
    ),
    "logprobs of a chat": (
        (CHAT[0], {**CHAT[1], "logprobs": True}), "invalid_value", BAD_LOGPROBS
    ),
    "logprobs of a completion": (
        (COMPLETION[0], {**COMPLETION[1], "logprobs": 1}), "invalid_value", BAD_LOGPROBS
    ),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def server_survives(server: Server) -> Iterator[None]:
    """Check that the same processes still run and answer after all these requests."""
    before = server.pids()
    yield
    assert server.pids() == before
    path, good = CHAT
    reply = httpx.post(server.url + path, json={**good, "max_tokens": 3}, timeout=30)
    assert reply.status_code == 200


@pytest.mark.parametrize(("request_", "code", "cases"), ALL.values(), ids=ALL)
async def test_a_bad_field_is_named(
    http: httpx.AsyncClient, request_: tuple[str, dict[str, Any]], code: str, cases: list[Case]
) -> None:
    path, good = request_
    for fields, param, says in cases:
        for stream in (False, True):
            sent = json.dumps({"stream": stream, **good, **fields})  # json writes NaN
            reply = await http.post(path, content=sent)
            assert (reply.status_code, reply.json().keys()) == (400, {"error"}), fields
            error = reply.json()["error"]
            assert error.keys() == {"message", "type", "param", "code"}
            assert (error["code"], error["param"]) == (code, param), error["message"]
            assert error["type"] == "invalid_request_error"
            assert says in error["message"]
            assert len(error["message"]) < 500
