"""Fields of /v1/responses and /v1/messages: unknown ones, and those that clients send back."""

from collections.abc import Callable
from typing import Any

import pytest

from api.messages.translate import viewed_message
from api.messages.translate import viewed_prompt as viewed_message_prompt
from api.requests.ignored_fields import all_unknown, warning
from api.requests.object_kinds import ObjectKind, unknown_in
from api.requests.unknown_fields import refuse_unknown
from api.requests.viewed import ViewedRequest
from api.responses.translate import parse_prompt, parse_response, viewed_prompt, viewed_response
from shared.errors import JobFailed

Fields = dict[str, Any]
Views = Callable[..., tuple[ViewedRequest, ViewedRequest]]
"""Returns a request for an answer, and one for the count of its tokens."""


def responses(**fields: Any) -> tuple[ViewedRequest, ViewedRequest]:
    body = {"model": "m", "input": "hi", **fields}
    return viewed_response(parse_response(body), []), viewed_prompt(parse_prompt(body), [])


def messages(**fields: Any) -> tuple[ViewedRequest, ViewedRequest]:
    body = {"model": "m", "messages": [USER], **fields}
    return viewed_message({"max_tokens": 9, **body}), viewed_message_prompt(body)


def warning_of(view: ViewedRequest) -> str | None:
    return warning(view.parse({}), view.others)


def unknown_of(view: ViewedRequest) -> list[str]:
    return [field.path for field in all_unknown(view.parse({}), view.others)]


# Parts of requests for responses.
TEXT = {"type": "input_text", "text": "hi"}
TOOL: Fields = {"type": "function", "name": "f", "parameters": {"type": "object"}}
NAMED = {"type": "function", "name": "f"}
ALLOWED = {"type": "allowed_tools", "mode": "auto", "tools": [{**NAMED, "x": 1}]}
SCHEMA = {"type": "json_schema", "name": "s", "schema": {"type": "object", "x": {"x": 1}}}
EARLIER = [{"type": "message", "role": "user", "content": [TEXT]}]
DONE = {"status": "completed"}
REASONING = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "y"}],
    "content": [{"type": "reasoning_text", "text": "y"}],
    "encrypted_content": "z",
    **DONE,
}
OUTPUT_TEXT = {
    "type": "output_text",
    "text": "a",
    "annotations": [{"type": "url_citation", "x": 1}],
    "logprobs": [{"token": "a", "x": 1}],
}
OUTPUT = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "phase": "final_answer",
    "content": [OUTPUT_TEXT, {"type": "refusal", "refusal": "no"}],
    **DONE,
}
CALL = {
    "id": "fc_1",
    "type": "function_call",
    "call_id": "c",
    "name": "f",
    "arguments": '{"x": 1}',
    "namespace": "n",
    "caller": {"type": "direct"},
    "async": False,
    **DONE,
}
CALLED = {"id": "o", "type": "function_call_output", "call_id": "c", "output": [TEXT], **DONE}
ITEMS = [{**EARLIER[0], "id": "msg_0", **DONE}, REASONING, OUTPUT, CALL, CALLED]
"""Items as OpenAI's API and this server return them."""

# Parts of requests for messages.
USER = {"role": "user", "content": "hi"}
BLOCK = {"type": "text", "text": "hi"}
CACHED = {"cache_control": {"type": "ephemeral", "ttl": "5m"}}
CLAUDE_TOOL: Fields = {"name": "f", "input_schema": {"type": "object", "x": 1}}
USE = {"type": "tool_use", "id": "t", "name": "f", "input": {"x": {"x": 1}}}
RESULT = {"type": "tool_result", "tool_use_id": "t", "content": [BLOCK]}
CLAUDE_SCHEMA = {"type": "json_schema", "schema": {"type": "object", "x": 1}}
BLOCKS = [
    {"type": "thinking", "thinking": "y", "signature": "s"},
    {"type": "redacted_thinking", "data": "z"},
    {**BLOCK, "citations": [{"type": "char_location", "x": 1}]},
    {**USE, "caller": {"type": "direct"}, **CACHED},
]
USED = {"role": "assistant", "content": BLOCKS}
"""A message with the fields of Anthropic's answers, and with marks for its cache."""


def asked(*parts: Fields) -> Fields:
    """Return the input of a response that has a user's message with these parts."""
    return {"input": [{"role": "user", "content": [*parts]}]}


def said(role: str, *blocks: Fields) -> Fields:
    """Return a conversation of a text, a call, and a message with these blocks."""
    return {"messages": [USER, USED, {"role": role, "content": [*blocks]}]}


UNKNOWN: list[tuple[Views, Fields, str]] = [
    (responses, {"colour": 1}, "colour"),
    (responses, {"input": [{**USER, "x": 1}]}, "input[0].x"),
    (responses, asked(TEXT, {**TEXT, "x": 1}), "input[0].content[1].x"),
    (responses, {"input": [{**CALL, "x": 1}, CALLED]}, "input[0].x"),
    (
        responses,
        {"input": [CALL, {**CALLED, "output": [{**TEXT, "x": 1}]}]},
        "input[1].output[0].x",
    ),
    (
        *(responses, {"input": [{**REASONING, "content": [{"text": "y", "x": 1}]}, OUTPUT]}),
        "input[0].content[0].x",
    ),
    (responses, {"tools": [{**TOOL, "x": 1}]}, "tools[0].x"),
    (responses, {"tools": [TOOL], "tool_choice": {**NAMED, "x": 1}}, "tool_choice.x"),
    (responses, {"tools": [TOOL], "tool_choice": ALLOWED}, "tool_choice.tools[0].x"),
    (responses, {"text": {"format": {**SCHEMA, "x": 1}}}, "text.format.x"),
    (responses, {"text": {"x": 1}}, "text.x"),
    (responses, {"reasoning": {"x": 1}}, "reasoning.x"),
    (messages, {"colour": 1}, "colour"),
    (messages, {"messages": [{**USER, "x": 1}]}, "messages[0].x"),
    (messages, said("user", RESULT, {**BLOCK, "x": 1}), "messages[2].content[1].x"),
    (messages, said("assistant", BLOCK, {**USE, "x": 1}), "messages[2].content[1].x"),
    (
        *(messages, said("user", {**RESULT, "content": [{**BLOCK, "x": 1}]})),
        "messages[2].content[0].content[0].x",
    ),
    (messages, {"system": [{**BLOCK, "x": 1}]}, "system[0].x"),
    (messages, {"tools": [{**CLAUDE_TOOL, "x": 1}]}, "tools[0].x"),
    (messages, {"tools": [CLAUDE_TOOL], "tool_choice": {"type": "auto", "x": 1}}, "tool_choice.x"),
    (messages, {"thinking": {"type": "enabled", "x": 1}}, "thinking.x"),
    (messages, {"output_config": {"x": 1}}, "output_config.x"),
    (messages, {"output_config": {"format": {**CLAUDE_SCHEMA, "x": 1}}}, "output_config.format.x"),
]


@pytest.mark.parametrize(("views", "fields", "path"), UNKNOWN)
def test_an_unknown_field_is_listed_or_refused_by_its_path(
    views: Views, fields: Fields, path: str
) -> None:
    for view in views(**fields):
        assert path in (warning_of(view) or "").removeprefix("not used: ").split(", ")
        assert unknown_of(view) == [path]
        with pytest.raises(JobFailed, match="unknown field") as refused:
            refuse_unknown(all_unknown(view.parse({}), view.others))
        assert refused.value.error.param == path


@pytest.mark.parametrize(
    "value", [None, "text", 7, [7, [{"x": 1}]], {"x": 1}, {"type": ["circle"], "x": 1}]
)
def test_values_of_no_known_kind_have_no_unknown_fields(value: Any) -> None:
    assert list(unknown_in(value, "a", {"circle": ObjectKind(fields=("type",))})) == []


@pytest.mark.parametrize(
    ("views", "field", "name"),
    [
        (responses, "max_output_token", "max_output_tokens"),
        (messages, "stop_sequence", "stop_sequences"),
    ],
)
def test_a_misspelt_field_is_compared_with_the_fields_of_its_api(
    views: Views, field: str, name: str
) -> None:
    for view in views(**{field: 5}):
        with pytest.raises(JobFailed, match=rf"did you mean {name}\?"):
            refuse_unknown(all_unknown(view.parse({}), view.others))


RETURNED: Fields = {
    **said("user", {**RESULT, "is_error": False, **CACHED}),
    "system": [{**BLOCK, **CACHED}],
    "tools": [{**CLAUDE_TOOL, "type": "custom", **CACHED}],
}


@pytest.mark.parametrize(
    ("views", "fields"), [(responses, {"input": ITEMS, "tools": [TOOL]}), (messages, RETURNED)]
)
def test_what_is_sent_back_has_no_unknown_fields(views: Views, fields: Fields) -> None:
    for view in views(**fields):
        assert (unknown_of(view), warning_of(view)) == ([], None)


def test_free_form_objects_have_no_unknown_fields() -> None:
    view, _ = responses(metadata={"x": "1"}, text={"format": SCHEMA}, tools=[TOOL])
    assert (unknown_of(view), warning_of(view)) == ([], None)


IGNORED: list[tuple[Views, Fields, str]] = [
    (responses, {"reasoning": {"context": "all_turns"}}, "reasoning.context"),
    (responses, {"reasoning": {"mode": "pro"}}, "reasoning.mode"),
    (responses, {"access_programs": {"cyber": "standard"}}, "access_programs"),
    (responses, {"tools": [{**TOOL, "strict": True}]}, "tools[0].strict"),
    (responses, {"tools": [{**TOOL, "defer_loading": True}]}, "tools[0].defer_loading"),
    (
        *(responses, asked({**TEXT, "prompt_cache_breakpoint": {"a": 1}})),
        "input[0].content[0].prompt_cache_breakpoint",
    ),
    (messages, {"billing_policy": {"a": 1}}, "billing_policy"),
    (messages, {"workspace_id": "a"}, "workspace_id"),
    (messages, {"thinking": {"type": "adaptive", "display": "omitted"}}, "thinking.display"),
    (messages, {"output_config": {"task_budget": {"total": 5}}}, "output_config.task_budget"),
    (messages, {"tools": [{**CLAUDE_TOOL, "strict": True}]}, "tools[0].strict"),
    (messages, {"tools": [{**CLAUDE_TOOL, "input_examples": [1]}]}, "tools[0].input_examples"),
    (messages, said("user", {**RESULT, "is_error": True}), "messages[2].content[0].is_error"),
]


@pytest.mark.parametrize(("views", "fields", "path"), IGNORED)
def test_a_known_field_without_effect_is_listed_and_never_refused(
    views: Views, fields: Fields, path: str
) -> None:
    for view in views(**fields):
        assert (warning_of(view), unknown_of(view)) == (f"not used: {path}", [])


@pytest.mark.parametrize(
    ("views", "fields", "ignored"),
    [
        (
            responses,
            {
                "temperature": 0.5,
                "max_output_tokens": 5,
                "stream": True,
                "store": False,
                "seed": 1,
                "parallel_tool_calls": False,
                "text": {"format": SCHEMA},
            },
            "temperature, max_output_tokens, stream, store, seed, parallel_tool_calls, text.format",
        ),
        (
            messages,
            {
                "temperature": 0.5,
                "stop_sequences": ["x"],
                "metadata": {"a": "b"},
                "service_tier": "standard_only",
                "seed": 1,
            },
            "service_tier, temperature, stop_sequences, metadata, seed",
        ),
    ],
)
def test_fields_of_the_answer_do_not_change_its_prompt(
    views: Views, fields: Fields, ignored: str
) -> None:
    _, view = views(**fields)
    assert (warning_of(view), unknown_of(view)) == (f"not used: {ignored}", [])
    assert view.parse({}) == views()[1].parse({})


def test_fields_of_the_prompt_are_those_of_a_response() -> None:
    fields: Fields = {
        "input": ITEMS,
        "instructions": "Be brief.",
        "tools": [TOOL],
        "tool_choice": "none",
        "reasoning": {"effort": "low"},
        "chat_template_kwargs": {"a": 1},
        "enable_thinking": True,
    }
    whole, prompt = (view.parse({}) for view in responses(**fields))
    names = ("messages", "tools", "tool_choice", "reasoning_effort")
    for name in (*names, "chat_template_kwargs", "enable_thinking"):
        assert getattr(whole, name) == getattr(prompt, name)


@pytest.mark.parametrize("name", ["personality", "conversation", "n_predict", "max_tokens"])
def test_a_field_that_would_change_the_prompt_or_has_another_name_is_refused(name: str) -> None:
    body = {"model": "m", "input": "hi", name: 5}
    with pytest.raises(JobFailed, match=name):
        viewed_prompt(parse_prompt(body), []).parse({})
