"""Requests with invalid fields are refused with an error that names the field."""

import itertools
import json
from typing import Any

import httpx
import pytest
from api_support import ScriptedWorker
from raw_client import CHAT
from translated_jobs import HI

from api.http.body import parse_json_object
from api.requests.ignored_fields import warning
from api.requests.translate import parse_chat, parse_completion
from shared.store.views.pool_views import PoolViews

TEXT = "/v1/completions"
INVALID, UNSUPPORTED, UNKNOWN = "invalid_value", "unsupported_parameter", "unknown_parameter"
STRICT = {"Prefer": "handling=strict"}
PART = "messages[1].content[0]"
NAN, INF = float("nan"), float("inf")
CALLED_FUNCTION, PARAMETERS = "messages[0].tool_calls[0].function", "tools[0].function.parameters"
JSON_LIST = {"type": "json_object", "schema": []}


def called(arguments: Any = "{}", **fields: Any) -> dict[str, Any]:
    function = {"name": "a", "arguments": arguments, **fields}
    return {"id": "1", "type": "function", "function": function}


def user(content: Any) -> dict[str, Any]:
    return {"messages": [HI, {"role": "user", "content": content}]}


def assistant(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "assistant", "content": None, **fields}]}


def tools(*functions: dict[str, Any]) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": function} for function in functions]}


def answer_format(**fields: Any) -> dict[str, Any]:
    """Return a JSON response_format with this `type`, or with these fields in its json_schema."""
    kind = fields.pop("type", "json_schema")
    schema = {"name": "a", "schema": {"type": "object"}, **fields}
    return {"response_format": {"type": kind, "json_schema": schema}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    spec = {"mode": mode, "tools": [named(name) for name in names]}
    return {"type": "allowed_tools", "allowed_tools": spec}


def chosen(choice: Any, **fields: Any) -> dict[str, Any]:
    return {**tools({"name": "a"}), "tool_choice": choice, **fields}


FORMAT_VALUES: dict[str, tuple[Any, ...]] = {
    "strict": ("yes",),
    "name": ("a b", None),
    "schema": (None, [], {"const": NAN}),
}
BAD_CHOICES = (
    *("always", {"name": "a"}, named("b"), allowed("auto"), allowed("auto", "b")),
    allowed("none", "a"),
)
VALUES: dict[tuple[str, str], dict[str, tuple[Any, ...]]] = {
    (CHAT, INVALID): {
        "temperature": (-0.1, 2.1, "hot", "0.5", True, NAN, INF, -INF, [1]),
        "top_p": (0, 1.1, NAN),
        "top_k": (-2, 1.5, 2**31),
        "min_p": (-0.1, 1.1),
        "max_tokens": (0, -3, "5", NAN),
        "max_completion_tokens": (0, 10**30),
        "min_tokens": (-1,),
        "n": (0, 129, True),
        "stop": (1, [1], "", ["x"] * 17),
        "seed": ("x", 2**63, 1e300),
        "stream": ("yes", 1),
        "stream_options": ({"include_usage": True},),
        "ignore_eos": (1,),
        "user": (5,),
        "model": (None, 5, ""),
        "messages": ([], None, "hi", {"role": "user"}),
        "tools": ({},),
        "tool_choice": ("required", allowed("auto", "a")),
        "parallel_tool_calls": (1,),
        "logprobs": (1,),
        "top_logprobs": (3,),
        "presence_penalty": (2.5, False),
        "frequency_penalty": (-2.1, "1"),
        "repetition_penalty": (0, NAN),
        "logit_bias": ([5], {"cat": 1}, {"-5": 1}, {str(2**31): 1}, dict.fromkeys(range(301), 1)),
        "response_format": ("json_object", {"type": "json_schema"}, {"type": "text", "schema": {}}),
        "store": (1,),
        "service_tier": (1, "scale"),
        "background": ("yes",),
    },
    (CHAT, UNSUPPORTED): {"functions": ([{}],), "modalities": (["audio"],), "prompt": ("x",)},
    (TEXT, INVALID): {
        "min_tokens": (17,),
        "prompt": (
            *(None, "", [], 5, ["a"] * 129, ["a", ""], [[1], []], [[1], 2], ["a", 1], [""], [[]]),
            *([["a"]], [[True]], [1, "a"], [1, -1], [True], [1.0], [2**31]),
        ),
        "echo": (1,),
        "logprobs": (6, True),
    },
    (TEXT, UNSUPPORTED): {"messages": ([HI],)},
}
"""Bad values of each field, by endpoint and code. The error names the field."""

CASES: list[tuple[str, dict[str, Any], str, str]] = [
    # endpoint, fields that differ from a valid request, the field in the error, the code
    *(
        (endpoint, {field: value}, field, code)
        for (endpoint, code), fields in VALUES.items()
        for field, values in fields.items()
        for value in values
    ),
    (CHAT, {"stream": True, "stream_options": 1}, "stream_options", INVALID),
    (CHAT, {"messages": ["hi"]}, "messages[0]", INVALID),
    (CHAT, {"messages": [{}]}, "messages[0].role", INVALID),
    (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content", INVALID),
    (CHAT, {"messages": [HI, {"role": "the king", "content": "x"}]}, "messages[1].role", INVALID),
    (CHAT, {"messages": [HI, {"role": 3, "content": "x"}]}, "messages[1].role", INVALID),
    (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", INVALID),
    (CHAT, {"messages": [{**HI, "name": 5}]}, "messages[0].name", INVALID),
    (CHAT, assistant(tool_calls=5), "messages[0].tool_calls", INVALID),
    (CHAT, assistant(tool_calls=[{"id": "1"}]), "messages[0].tool_calls[0].type", INVALID),
    (CHAT, assistant(tool_calls=[called({})]), f"{CALLED_FUNCTION}.arguments", INVALID),
    (CHAT, assistant(function_call={"name": "a"}), "messages[0].function_call", UNSUPPORTED),
    (CHAT, assistant(audio={"id": "a"}), "messages[0].audio", UNSUPPORTED),
    (CHAT, user(5), "messages[1].content", INVALID),
    (CHAT, user(NAN), "messages[1].content", INVALID),
    (CHAT, user([5]), "messages[1].content[0]", INVALID),
    (CHAT, user([{"text": "x"}]), "messages[1].content[0].type", INVALID),
    (CHAT, user([{"type": "refusal", "text": "x"}]), "messages[1].content[0]", INVALID),
    (CHAT, {"messages": [{**HI, "prefix": True}]}, "messages[0].prefix", UNSUPPORTED),
    (CHAT, user([{"type": "text"}]), "messages[1].content[0]", INVALID),
    (CHAT, user([{"type": "text", "text": 5}]), "messages[1].content[0].text", INVALID),
    *(
        (CHAT, user([{"type": kind}]), "messages[1].content[0].type", UNSUPPORTED)
        for kind in ("video_url", "input_audio", "file")
    ),
    (CHAT, user([{"type": "image_url"}]), "messages[1].content[0].image_url", INVALID),
    (CHAT, user([{"type": "hologram"}]), "messages[1].content[0].type", INVALID),
    (CHAT, {"tools": [{"type": "function"}]}, "tools[0].function", INVALID),
    (CHAT, {"tools": [{"type": "custom", "custom": {}}]}, "tools[0].type", UNSUPPORTED),
    (CHAT, tools({}), "tools[0].function.name", INVALID),
    (CHAT, tools({"name": "with space"}), "tools[0].function.name", INVALID),
    (CHAT, tools({"name": "a", "parameters": []}), PARAMETERS, INVALID),
    (CHAT, tools({"name": "a", "parameters": {"type": "string"}}), PARAMETERS, INVALID),
    (CHAT, tools({"name": "a", "strict": 1}), "tools[0].function.strict", INVALID),
    (CHAT, tools({"name": "a"}, {"name": "a"}), "tools", INVALID),
    (CHAT, tools(*({"name": f"t{i}"} for i in range(129))), "tools", INVALID),
    *((CHAT, chosen(choice), "tool_choice", INVALID) for choice in BAD_CHOICES),
    (CHAT, chosen(named("a"), ignore_eos=True), "ignore_eos", INVALID),
    (CHAT, chosen("required", min_tokens=3), "min_tokens", INVALID),
    (CHAT, chosen(allowed("required", "a"), min_tokens=3), "min_tokens", INVALID),
    (CHAT, {"logprobs": True, "top_logprobs": 21}, "top_logprobs", INVALID),
    (CHAT, {"logprobs": True, "top_logprobs": -1}, "top_logprobs", INVALID),
    (CHAT, {"logit_bias": {"5": 101}}, "logit_bias[5]", INVALID),
    (CHAT, {"logit_bias": {"5": None}}, "logit_bias[5]", INVALID),
    (CHAT, {"min_tokens": 6, "max_tokens": 5}, "min_tokens", INVALID),
    (CHAT, {"response_format": {}}, "response_format.type", INVALID),
    (CHAT, {"response_format": {"type": "regex"}}, "response_format.type", INVALID),
    (CHAT, answer_format(type="json_object"), "response_format", INVALID),
    (CHAT, {"response_format": JSON_LIST}, "response_format.schema", INVALID),
    *(
        (CHAT, answer_format(**{field: value}), f"response_format.json_schema.{field}", INVALID)
        for field, values in FORMAT_VALUES.items()
        for value in values
    ),
    (CHAT, {**answer_format(), "ignore_eos": True}, "ignore_eos", INVALID),
    (CHAT, {**answer_format(), "min_tokens": 1}, "min_tokens", INVALID),
    (CHAT, {"metadata": {"a": NAN}}, "metadata.a", INVALID),
    (TEXT, {"prompt": ["a"] * 9, "n": 15}, "prompt", INVALID),
    (TEXT, {"best_of": 3, "n": 2}, "best_of", UNSUPPORTED),
]


UNKNOWN_FIELDS: list[tuple[str, dict[str, Any], str]] = [
    # endpoint, fields that differ from a valid request, the path of the unknown one
    (CHAT, {"stream": True, "stream_options": {"a": 1}}, "stream_options.a"),
    (CHAT, {"messages": [{**HI, "tool_call_id": "x"}]}, "messages[0].tool_call_id"),
    (CHAT, {"messages": [{**HI, "tool_calls": [called()]}]}, "messages[0].tool_calls"),
    (CHAT, {"messages": [{**HI, "colour": 1}]}, "messages[0].colour"),
    (CHAT, {"temprature": 1}, "temprature"),
    (CHAT, tools({"name": "a", "colour": 1}), "tools[0].function.colour"),
    (CHAT, answer_format(colour=1), "response_format.json_schema.colour"),
    (TEXT, {"cache_prompt": True}, "cache_prompt"),
    (CHAT, user([{"type": "text", "text": "x", "cache_control": {}}]), PART + ".cache_control"),
    (CHAT, assistant(tool_calls=[{**called(), "index": 0}]), "messages[0].tool_calls[0].index"),
    (CHAT, assistant(tool_calls=[called(parsed=1)]), f"{CALLED_FUNCTION}.parsed"),
    (CHAT, assistant(parsed={"a": 1}), "messages[0].parsed"),
    (CHAT, {"messages": [{"role": "function", "content": "x", "id": "1"}]}, "messages[0].id"),
    (CHAT, {"response_format": {"type": "text", "colour": {}}}, "response_format.colour"),
    (CHAT, {"tools": [{**named("a"), "cache_control": {}}]}, "tools[0].cache_control"),
    (CHAT, tools({"name": "a"}) | {"tool_choice": {**named("a"), "b": 1}}, "tool_choice.b"),
]


def body_of(endpoint: str, fields: dict[str, Any]) -> bytes:
    given = {"messages": [HI]} if endpoint == CHAT else {"prompt": "hi"}
    return json.dumps({"model": "extract", **given, **fields}).encode()


async def test_a_bad_field_is_a_400_that_names_it(
    direct: httpx.AsyncClient, views: PoolViews
) -> None:
    wrong = []
    for endpoint, fields, param, code in CASES:
        response = await direct.post(endpoint, content=body_of(endpoint, fields))
        error = response.json()["error"]
        got = (response.status_code, error["param"], error["code"], error["type"])
        if got != (400, param, code, "invalid_request_error") or param not in error["message"]:
            wrong.append((endpoint, fields, got, error["message"]))
    assert wrong == []
    assert (await views.counts()).waiting == 0


@pytest.mark.parametrize(("endpoint", "fields", "path"), UNKNOWN_FIELDS)
def test_an_unknown_field_is_accepted_and_listed(
    endpoint: str, fields: dict[str, Any], path: str
) -> None:
    raw = parse_json_object(body_of(endpoint, fields))
    request = parse_chat(raw) if endpoint == CHAT else parse_completion(raw)
    assert warning(request) == f"not used: {path}"


KINDS = [{}, {"stream": True}, {"background": True}, {"stream": True, "background": True}]
"""Fields that select the kind of an answer."""


HANDLINGS: list[tuple[str, dict[str, str], str]] = [
    (CHAT, {}, "colour\r\nX-Injected"),
    (TEXT, {"Prefer": "handling=lenient"}, "colour\r\nX-Injected"),
    (CHAT, STRICT, "prompt_cache_key"),
]
"""Routes, headers, and a field without effect."""


async def test_every_kind_of_answer_lists_fields_without_effect_and_the_applied_handling(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    for kind, (endpoint, headers, field) in itertools.product(KINDS, HANDLINGS):
        body = body_of(endpoint, {**kind, field: "k"})
        reply, _ = await worker.serve(http.post(endpoint, content=body, headers=headers))
        assert reply.status_code in (200, 202)
        listed = field.replace("\r\n", "??")
        assert reply.headers["x-lorikeet-warning"] == f"not used: {listed}"
        applied = "handling=strict" if headers == STRICT else None
        assert reply.headers.get("preference-applied") == applied


async def test_with_strict_handling_an_unknown_field_is_a_400_that_names_it(
    direct: httpx.AsyncClient, views: PoolViews
) -> None:
    wrong = []
    for endpoint, fields, path in UNKNOWN_FIELDS:
        reply = await direct.post(endpoint, content=body_of(endpoint, fields), headers=STRICT)
        error = reply.json()["error"]
        got = (reply.status_code, error["param"], error["code"])
        if got != (400, path, UNKNOWN) or f"unknown field: {path}; " not in error["message"]:
            wrong.append((endpoint, fields, got, error["message"]))
        assert reply.headers["preference-applied"] == "handling=strict"
    assert wrong == []
    assert (await views.counts()).waiting == 0


async def test_with_strict_handling_the_error_suggests_a_name_of_the_same_object(
    direct: httpx.AsyncClient,
) -> None:
    cases = [
        ({"temprature": 1}, "did you mean temperature?"),
        ({"messages": [HI, {**HI, "contents": "x"}]}, "did you mean messages[1].content?"),
        (answer_format(shema={}), "did you mean response_format.json_schema.schema?"),
        ({"frobnicate": 1}, "leave it out; GET /docs lists the fields"),
    ]
    for fields, hint in cases:
        reply = await direct.post(CHAT, content=body_of(CHAT, fields), headers=STRICT)
        assert reply.json()["error"]["message"].endswith(hint)


async def test_the_error_of_an_unknown_field_has_only_the_start_of_a_long_name(
    direct: httpx.AsyncClient,
) -> None:
    body = body_of(CHAT, {"temperature" * 500: 1})
    error = (await direct.post(CHAT, content=body, headers=STRICT)).json()["error"]
    assert len(error["param"]) < 250
    assert len(error["message"]) < 350


@pytest.mark.parametrize("field", ["model", "messages"])
async def test_a_missing_field_is_named(direct: httpx.AsyncClient, field: str) -> None:
    body: dict[str, Any] = {"model": "extract", "messages": [HI]}
    del body[field]
    response = await direct.post(CHAT, json=body)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == f"{field}: is required"


async def test_an_error_message_has_the_value_and_shortens_a_long_one(
    direct: httpx.AsyncClient,
) -> None:
    response = await direct.post(CHAT, content=body_of(CHAT, {"temperature": 3}))
    assert response.json()["error"]["message"].endswith("not 3")
    response = await direct.post(CHAT, content=body_of(CHAT, {"temperature": "x" * 5000}))
    assert len(response.json()["error"]["message"]) < 200
