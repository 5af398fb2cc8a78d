"""Invalid requests get an error that says what to do, and affect no other request."""

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
INVALID, UNKNOWN, UNSUPPORTED = "invalid_value", "unknown_parameter", "unsupported_parameter"
LENGTH = "context_length_exceeded"


def messages(*items: Any) -> dict[str, Any]:
    return {"messages": list(items)}


def tool(**function: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f", **function}}]}


CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}

BAD_CHATS: list[tuple[dict[str, Any], str, str, str]] = [
    # changes to a valid request, error code, field, and part of the message
    (messages(), INVALID, "messages", "can't be empty; send at least one message"),
    ({"messages": "hi"}, INVALID, "messages", "must be a valid list"),
    ({"messages": None}, INVALID, "messages", "must be a valid list"),
    (messages("hi"), INVALID, "messages[0]", "must be"),
    (messages({"role": "user"}), INVALID, "messages[0].content", "is required"),
    (messages({"content": "hi"}), INVALID, "messages[0].role", "is required"),
    (
        *(messages(USER, {"role": "the king", "content": "hi"}), INVALID, "messages[1].role"),
        "must match pattern",
    ),
    (messages({**USER, "content": 3}), INVALID, "messages[0].content", "must be a string or a"),
    (messages({**USER, "content": [IMAGE]}), UNSUPPORTED, "messages[0].content[0].type", "send"),
    (messages({"role": "tool", "content": "x"}), INVALID, "messages[0].tool_call_id", "required"),
    (
        *(messages({"role": "assistant", "tool_calls": [{**CALL, "type": "web"}]}), INVALID),
        *("messages[0].tool_calls[0].type", "must be 'function'"),
    ),
    ({"model": 3}, INVALID, "model", "must be a valid string"),
    ({"model": ""}, INVALID, "model", "at least 1 character"),
    ({"n": 0}, INVALID, "n", "greater than or equal to 1, not 0"),
    ({"n": -1}, INVALID, "n", "greater than or equal to 1, not -1"),
    ({"n": 10_000}, INVALID, "n", "less than or equal to 128"),
    ({"n": 1.5}, INVALID, "n", "must be a valid integer"),
    ({"n": True}, INVALID, "n", "must be a valid integer"),
    ({"temperature": NAN}, INVALID, "temperature", "must be a finite number"),
    ({"temperature": INF}, INVALID, "temperature", "must be a finite number"),
    ({"temperature": -0.1}, INVALID, "temperature", "greater than or equal to 0"),
    ({"temperature": "hot"}, INVALID, "temperature", 'must be a valid number, not "hot"'),
    ({"top_p": 0}, INVALID, "top_p", "greater than 0"),
    ({"top_p": 1.1}, INVALID, "top_p", "less than or equal to 1"),
    ({"top_k": -2}, INVALID, "top_k", "greater than or equal to -1"),
    ({"min_p": 2}, INVALID, "min_p", "less than or equal to 1"),
    ({"presence_penalty": 3}, INVALID, "presence_penalty", "less than or equal to 2"),
    ({"frequency_penalty": "x"}, INVALID, "frequency_penalty", "must be a valid number"),
    ({"max_tokens": 0}, INVALID, "max_tokens", "greater than or equal to 1"),
    ({"max_tokens": "many"}, INVALID, "max_tokens", "must be a valid integer"),
    ({"max_tokens": 2**70}, INVALID, "max_tokens", "must be"),
    ({"seed": "x"}, INVALID, "seed", "must be a valid integer"),
    ({"seed": 2**63}, INVALID, "seed", "must be"),
    ({"stop": [""]}, INVALID, "stop", "can't contain an empty string"),
    ({"stop": 3}, INVALID, "stop", "must be a string or a list of strings"),
    ({"stop": ["a"] * 17}, INVALID, "stop", "at most 16 strings, not 17"),
    ({"stream": "yes"}, INVALID, "stream", "must be a valid boolean"),
    ({"stream": False, "stream_options": {}}, INVALID, "stream_options", "with stream: true"),
    ({"ignore_eos": 1}, INVALID, "ignore_eos", "must be a valid boolean"),
    ({"user": 5}, INVALID, "user", "must be a valid string"),
    ({"store": "yes"}, INVALID, "store", "must be a valid boolean"),
    ({"metadata": {"a": 1}}, INVALID, "metadata.a", "must be a valid string"),
    ({"tools": [{"type": "function"}]}, INVALID, "tools[0].function", "is required"),
    (tool(name="a b"), INVALID, "tools[0].function.name", "must match"),
    (tool(parameters="x"), INVALID, "tools[0].function.parameters", "must be"),
    (
        *(tool(parameters={"type": "array"}), INVALID, "tools[0].function.parameters"),
        'must have the type "object"',
    ),
    (tool(), UNSUPPORTED, "tools", 'leave them out, or send tool_choice "none"'),
    ({"tool_choice": "required"}, INVALID, "tool_choice", "only allowed with tools"),
    ({**tool(), "tool_choice": "g"}, INVALID, "tool_choice", 'must be "none", "auto"'),
    ({"parallel_tool_calls": "no"}, INVALID, "parallel_tool_calls", "must be a valid boolean"),
    ({"functions": [{"name": "f"}]}, UNSUPPORTED, "functions", "isn't supported; leave it out"),
    ({"function_call": {"name": "f"}}, UNSUPPORTED, "function_call", "isn't supported"),
    ({"audio": {"voice": "x"}}, UNSUPPORTED, "audio", "isn't supported; leave it out"),
    ({"modalities": ["audio"]}, UNSUPPORTED, "modalities", "isn't supported"),
    ({"reasoning_effort": "big"}, INVALID, "reasoning_effort", "must be 'none', 'minimal'"),
    ({"chat_template": "x"}, UNSUPPORTED, "chat_template", "isn't supported"),
    ({"verbosity": "low"}, UNSUPPORTED, "verbosity", "isn't supported"),
    ({"web_search_options": {}}, UNSUPPORTED, "web_search_options", "isn't supported"),
    ({"regex": "x"}, UNSUPPORTED, "regex", "send structured_outputs.regex instead"),
    ({"modalities": ["audio"]}, UNSUPPORTED, "modalities", 'send null or ["text"]'),
    (messages({**USER, "content": TOO_LONG}), LENGTH, "messages", "reduce the length"),
]
BAD_COMPLETIONS: list[tuple[dict[str, Any], str, str, str]] = [
    ({"prompt": ""}, INVALID, "prompt", "can't be empty"),
    ({"prompt": []}, INVALID, "prompt", "can't be empty"),
    ({"prompt": None}, INVALID, "prompt", "list of token ids"),
    ({"prompt": [1, -1]}, INVALID, "prompt", "list of token ids"),
    ({"prompt": [7, 10_000]}, INVALID, "prompt[1]", "outside the vocabulary"),
    ({"prompt": [7, 2.5]}, INVALID, "prompt", "list of token ids"),
    ({"prompt": TOO_LONG}, LENGTH, "prompt", "reduce the length"),
    ({"prompt": [7] * 200_000}, LENGTH, "prompt", "reduce the length"),
    ({"prompt": "abc", "max_tokens": 510}, LENGTH, "prompt", "reduce one of them"),
    ({"messages": [USER]}, UNSUPPORTED, "messages", "or POST /v1/chat/completions instead"),
    ({"suffix": "x"}, UNSUPPORTED, "suffix", "isn't supported; leave it out"),
]
UNKNOWN_FIELDS: list[tuple[dict[str, Any], str, str]] = [
    # changes to a valid request, field, and part of the message
    ({"temprature": 1}, "temprature", "temprature; did you mean temperature?"),
    (messages({**USER, "colour": 1}), "messages[0].colour", "leave it out; GET /docs lists"),
    (messages({**USER, "contents": "x"}), "messages[0].contents", "mean messages[0].content?"),
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

NO_JSON, NO_MODEL = "the body isn't valid JSON", "GET /v1/models lists all models"
BAD_REQUESTS: list[tuple[str, str, bytes, int, str, str | None, str]] = [
    # method, URL, body, status, error code, field, and part of the message
    ("POST", CHAT, b"", 400, INVALID, None, NO_JSON),
    ("POST", CHAT, b"{", 400, INVALID, None, NO_JSON),
    ("POST", CHAT, b"[]", 400, INVALID, None, "the body must be a JSON object"),
    ("POST", CHAT, b'"text"', 400, INVALID, None, "the body must be a JSON object"),
    ("POST", CHAT, b"\xff\xfe", 400, INVALID, None, NO_JSON),
    ("POST", CHAT, b"{" * 100_000, 400, INVALID, None, "has more than 65536 arrays"),
    ("POST", COMPLETIONS, b"", 400, INVALID, None, NO_JSON),
    ("POST", COMPLETIONS, b"null", 400, INVALID, None, "the body must be a JSON object"),
    ("POST", CHAT, b'{"model": "tiny"}', 400, INVALID, "messages", "is required"),
    ("POST", COMPLETIONS, b'{"prompt": "hi"}', 400, INVALID, "model", "is required"),
    (
        *("POST", CHAT, json.dumps({**GOOD_CHAT, "model": "no"}).encode()),
        *(404, "model_not_found", "model", NO_MODEL),
    ),
    (
        *("POST", COMPLETIONS, json.dumps({**GOOD_COMPLETION, "model": "no"}).encode()),
        *(404, "model_not_found", "model", NO_MODEL),
    ),
    ("GET", "/v1/models/no", b"", 404, "model_not_found", "model", NO_MODEL),
    ("GET", "/v1/jobs/no", b"", 404, "job_not_found", None, "has expired"),
    ("DELETE", "/v1/jobs/no", b"", 404, "job_not_found", None, "has expired"),
    ("POST", "/v1/jobs/no/cancel", b"", 404, "job_not_found", None, "has expired"),
    ("GET", "/v1/nothing", b"", 404, "unknown_url", None, "GET /docs lists all URLs"),
    ("POST", "/v1/embeddings", b"{}", 400, "invalid_value", "model", "is required"),
    ("POST", "/v1/images/generations", b"{}", 404, "unknown_url", None, "GET /docs lists all"),
    ("GET", CHAT, b"", 405, "method_not_allowed", None, "this URL accepts POST"),
    ("DELETE", "/v1/models", b"", 405, "method_not_allowed", None, "this URL accepts GET"),
    ("PUT", "/v1/jobs/no", b"", 405, "method_not_allowed", None, "accepts GET, DELETE"),
    ("POST", CHAT, b"x" * 5_000_000, 413, "request_too_large", None, "shorten it, or ask"),
]


@pytest.fixture(scope="module", autouse=True)
def server_survives(server: Server) -> Iterator[None]:
    """Check that the same processes still run and answer after all these requests."""
    before = server.pids()
    yield
    assert server.pids() == before
    reply = httpx.post(f"{server.url}{CHAT}", json={**GOOD_CHAT, "max_tokens": 3}, timeout=30)
    assert reply.status_code == 200


def assert_error(reply: httpx.Response, code: str, param: str | None, says: str) -> None:
    assert reply.headers["content-type"] == "application/json"
    assert reply.json().keys() == {"error"}
    error = reply.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param), error["message"]
    assert error["type"] == "invalid_request_error"
    assert says in error["message"]
    assert len(error["message"]) < 500


@pytest.mark.parametrize(("url", "body", "code", "param", "says"), BAD_FIELDS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_bad_field_is_named(
    http: httpx.AsyncClient,
    url: str,
    body: dict[str, Any],
    code: str,
    param: str,
    says: str,
    stream: bool,
) -> None:
    sent = json.dumps({"stream": stream, **body})  # json writes NaN, as Python's clients do
    reply = await http.post(url, content=sent)
    assert reply.status_code == 400, reply.text
    assert_error(reply, code, param, says)
    assert param.split("[")[0] in reply.json()["error"]["message"]


@pytest.mark.parametrize(("fields", "param", "says"), UNKNOWN_FIELDS)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_unknown_field_is_listed_or_with_strict_handling_refused(
    http: httpx.AsyncClient, fields: dict[str, Any], param: str, says: str, stream: bool
) -> None:
    body = {**GOOD_CHAT, "max_tokens": 2, "stream": stream, **fields}
    reply = await http.post(CHAT, json=body)
    assert (reply.status_code, reply.headers["x-lorikeet-warning"]) == (200, f"not used: {param}")
    strict = await http.post(CHAT, json=body, headers={"Prefer": "handling=strict"})
    assert strict.status_code == 400
    assert_error(strict, UNKNOWN, param, says)


@pytest.mark.parametrize(
    ("method", "url", "body", "status", "code", "param", "says"),
    BAD_REQUESTS,
    ids=[f"{method} {url} {body[:12]!r}" for method, url, body, *_ in BAD_REQUESTS],
)
async def test_a_bad_request_is_refused(
    http: httpx.AsyncClient,
    method: str,
    url: str,
    body: bytes,
    status: int,
    code: str,
    param: str | None,
    says: str,
) -> None:
    reply = await http.request(method, url, content=body)
    assert reply.status_code == status, reply.text
    assert_error(reply, code, param, says)
