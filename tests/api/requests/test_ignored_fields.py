"""Fields of all APIs that are unknown, unsupported, without effect, or sent back by clients."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel
from translated_jobs import HI, chat, completion

from api.messages.translate import viewed_message
from api.messages.translate import viewed_prompt as viewed_message_prompt
from api.requests.ignored_fields import all_unknown, warning
from api.requests.object_kinds import ObjectKind, unknown_in
from api.requests.scores import UNSUPPORTED as SCORES
from api.requests.translate import parse_chat, parse_completion
from api.requests.unknown_fields import refuse_unknown
from api.requests.unsupported_fields import (
    CHAT,
    COMPLETIONS,
    INSTEAD,
    MESSAGE,
    NeutralValues,
    drop_unsupported,
)
from api.requests.viewed import ViewedRequest
from api.responses.translate import parse_prompt, parse_response, viewed_prompt, viewed_response
from api.schema.chat import ChatCompletionRequest
from api.schema.chat_messages import AssistantMessage
from api.schema.completions import CompletionRequest
from shared.errors import ErrorCode, JobFailed

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
    return warning(view.parse(), view.others)


def unknown_of(view: ViewedRequest) -> list[str]:
    return [field.path for field in all_unknown(view.parse(), view.others)]


# Parts of requests for responses.
TEXT = {"type": "input_text", "text": "hi"}
TOOL: Fields = {"type": "function", "name": "f", "parameters": {"type": "object"}}
NAMED = {"type": "function", "name": "f"}
ALLOWED = {"type": "allowed_tools", "mode": "auto", "tools": [{**NAMED, "x": 1}]}
SCHEMA = {"type": "json_schema", "name": "s", "schema": {"type": "object", "x": {"x": 1}}}
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
ASKED = {"id": "msg_0", "type": "message", "role": "user", "content": [TEXT], **DONE}
ITEMS = [ASKED, REASONING, OUTPUT, CALL, CALLED]
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
            refuse_unknown(all_unknown(view.parse(), view.others))
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
            refuse_unknown(all_unknown(view.parse(), view.others))


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
    assert view.parse() == views()[1].parse()


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
    whole, prompt = (view.parse() for view in responses(**fields))
    names = ("messages", "tools", "tool_choice", "reasoning_effort")
    for name in (*names, "chat_template_kwargs", "enable_thinking"):
        assert getattr(whole, name) == getattr(prompt, name)


@pytest.mark.parametrize("name", ["personality", "conversation", "n_probs", "max_tokens"])
def test_a_field_that_would_change_the_prompt_or_has_another_name_is_refused(name: str) -> None:
    body = {"model": "m", "input": "hi", name: 5}
    with pytest.raises(JobFailed, match=name):
        viewed_prompt(parse_prompt(body), []).parse()


CHAT_TOOL = {"type": "function", "function": {"name": "a"}}
STRICT_TOOL = {"type": "function", "function": {"name": "a", "strict": True}}


def chat_warning(**fields: Any) -> str | None:
    return warning(parse_chat({"model": "m", "messages": [HI], **fields}))


STRICT = "not used: tools[0].function.strict"
ECHOED = {"role": "assistant", "content": "x"}
CITED = {**ECHOED, "annotations": [{"type": "url_citation"}]}


def allowed(mode: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "mode": mode, "tools": [CHAT_TOOL]}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompt_cache_key": "k"}, "not used: prompt_cache_key"),
        ({"store": True, "metadata": {"a": "b"}}, "not used: metadata, store"),
        ({}, None),
        ({"user": "me", "metadata": {}, "store": False}, None),
        ({"safety_identifier": "me"}, None),
        ({"service_tier": "priority"}, None),
        ({"top_p": 0.5}, None),
        # A strict tool has an effect if its call is required, or if a grammar covers the answers.
        ({"tools": [STRICT_TOOL]}, STRICT),
        ({"tools": [STRICT_TOOL], "tool_choice": "none"}, None),
        ({"tools": [STRICT_TOOL], "tool_choice": "required"}, None),
        ({"tools": [STRICT_TOOL], "tool_choice": allowed("required")}, None),
        ({"tools": [STRICT_TOOL], "tool_choice": allowed("auto")}, STRICT),
        ({"tools": [STRICT_TOOL], "response_format": {"type": "json_object"}}, None),
        ({"tools": [STRICT_TOOL], "guided_regex": "a+"}, None),
        ({"tools": [STRICT_TOOL], "response_format": {"type": "text"}}, STRICT),
        ({"tools": [{**CHAT_TOOL, "function": {"name": "a", "strict": False}}]}, None),
        ({"tools": [{**CHAT_TOOL, "function": {"name": "a", "strict": None}}]}, None),
        ({"messages": [HI, CITED]}, "not used: messages[1].annotations"),
        ({"messages": [HI, {**CITED, "annotations": []}]}, None),
        # Unknown fields follow the known ones.
        (
            {"messages": [HI, {**ECHOED, "id": "1"}], "store": True, "colour": 1},
            "not used: store, colour, messages[1].id",
        ),
    ],
)
def test_the_warning_names_fields_without_effect(
    fields: dict[str, Any], expected: str | None
) -> None:
    assert chat_warning(**fields) == expected


def test_the_warning_names_ten_fields_and_counts_the_others() -> None:
    named = chat_warning(**{f"x{i}": 1 for i in range(25)})
    assert named == f"not used: {', '.join(f'x{i}' for i in range(10))} and 15 more"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\r\nSet-Cookie: b=c", "a??Set-Cookie:?b=c"),
        ("a, b", "a??b"),
        ("größe\x00\x7f", "gr??e??"),
        ("", "?"),
        ("x" * 5000, "x" * 77 + "..."),
    ],
)
def test_names_of_unknown_fields_are_safe_in_a_header(name: str, shown: str) -> None:
    named = chat_warning(**{name: 1})
    assert named == f"not used: {shown}"
    assert named.isascii()
    assert named.isprintable()


def test_the_length_of_the_warning_is_bounded() -> None:
    named = chat_warning(**{f"{i}{'x' * 1000}": 1 for i in range(900)})
    assert named is not None
    assert len(named) <= 1000


def test_a_completions_unknown_field_is_named_once() -> None:
    request = parse_completion({"model": "m", "prompt": "hi", "store": True, "prediction": {}})
    assert warning(request) == "not used: store, prediction"


TABLES: list[tuple[NeutralValues, type[BaseModel]]] = [
    (CHAT, ChatCompletionRequest),
    (COMPLETIONS, CompletionRequest),
    (MESSAGE, AssistantMessage),
]


def test_unsupported_fields_are_accepted_with_neutral_values() -> None:
    neutral = {
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "functions": [],
        "function_call": "none",
        "response_format": {"type": "text"},
        "store": False,
        "metadata": None,
        "modalities": ["text"],
        "reasoning_effort": None,
        "user": "me",
    }
    assert chat(**neutral) == chat()
    assert completion(best_of=1, suffix=None) == completion()
    assert completion(best_of=1, n=3) == completion(best_of=3, n=3) == completion(n=3)


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [({}, "null or 1"), ({"n": 1}, "null or 1"), ({"n": 3}, "null or 1 or 3")],
)
def test_the_error_of_best_of_names_each_neutral_value_once(
    fields: dict[str, Any], allowed: str
) -> None:
    with pytest.raises(JobFailed) as caught:
        completion(best_of=2, **fields)
    error = caught.value.error
    assert error.message == f"best_of isn't supported; leave it out, or send {allowed}"


def test_every_unsupported_field_is_refused_by_name_unless_it_asks_for_nothing() -> None:
    for table, _ in TABLES:
        for name, neutral in table.items():
            for value in (None, *neutral):
                assert drop_unsupported({name: value, "n": 1}, table) == {"n": 1}
            with pytest.raises(JobFailed) as refused:
                drop_unsupported({name: {"asks": "for something"}}, table, path="x.")
            error = refused.value.error
            assert (error.code, error.param) == (ErrorCode.UNSUPPORTED_PARAMETER, f"x.{name}")
            assert error.message.startswith(f"x.{name} isn't supported; leave it out, or send null")


def test_no_supported_field_is_refused() -> None:
    for table, model in TABLES:
        assert table.keys() & model.model_fields.keys() == set()


def test_the_error_says_what_to_send_instead() -> None:
    known = CHAT.keys() | COMPLETIONS.keys() | SCORES.keys()
    assert INSTEAD.keys() <= known
    with pytest.raises(JobFailed, match="send return_token_ids instead"):
        chat(return_prompt_token_ids=True)
