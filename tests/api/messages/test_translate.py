"""Fields of /v1/messages: unknown ones, and those that clients send back."""

from typing import Any

import pytest

from api.messages.translate import viewed_message, viewed_prompt
from api.requests.ignored_fields import all_unknown, refuse_unknown, warning
from api.requests.viewed import ViewedRequest
from shared.errors import JobFailed

USER = {"role": "user", "content": "hi"}
TEXT = {"type": "text", "text": "hi"}
CACHED = {"cache_control": {"type": "ephemeral", "ttl": "5m"}}
TOOL: dict[str, Any] = {"name": "f", "input_schema": {"type": "object", "x": 1}}
USE = {"type": "tool_use", "id": "t", "name": "f", "input": {"x": {"x": 1}}}
RESULT = {"type": "tool_result", "tool_use_id": "t", "content": [TEXT]}
SCHEMA = {"type": "json_schema", "schema": {"type": "object", "x": 1}}
ECHOED = [
    {"role": "user", "content": [{**TEXT, **CACHED}]},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "y", "signature": "s"},
            {"type": "redacted_thinking", "data": "z"},
            {**TEXT, "citations": [{"type": "char_location", "x": 1}]},
            {**USE, "caller": {"type": "direct"}, **CACHED},
        ],
    },
    {"role": "user", "content": [{**RESULT, "is_error": False, **CACHED}]},
]
"""Messages with the fields of Anthropic's answers, and with marks for its cache."""


def views(**fields: Any) -> tuple[ViewedRequest, ViewedRequest]:
    """Return a request for a message, and one for the count of its tokens."""
    body = {"model": "m", "messages": [USER], **fields}
    return viewed_message({"max_tokens": 9, **body}), viewed_prompt(body)


def warning_of(view: ViewedRequest) -> str | None:
    return warning(view.parse({}), view.others)


def unknown_of(view: ViewedRequest) -> list[str]:
    return [field.path for field in all_unknown(view.parse({}), view.others)]


def said(role: str, block: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [USER, {"role": role, "content": [TEXT, block]}]}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"colour": 1}, "colour"),
        ({"messages": [{**USER, "x": 1}]}, "messages[0].x"),
        (said("user", {**TEXT, "x": 1}), "messages[1].content[1].x"),
        (said("assistant", {**USE, "x": 1}), "messages[1].content[1].x"),
        (
            {
                "messages": [
                    {"role": "assistant", "content": [USE]},
                    {"role": "user", "content": [{**RESULT, "content": [{**TEXT, "x": 1}]}]},
                ]
            },
            "messages[1].content[0].content[0].x",
        ),
        ({"system": [{**TEXT, "x": 1}]}, "system[0].x"),
        ({"tools": [{**TOOL, "x": 1}]}, "tools[0].x"),
        ({"tools": [TOOL], "tool_choice": {"type": "auto", "x": 1}}, "tool_choice.x"),
        ({"thinking": {"type": "enabled", "x": 1}}, "thinking.x"),
        ({"output_config": {"x": 1}}, "output_config.x"),
        ({"output_config": {"format": {**SCHEMA, "x": 1}}}, "output_config.format.x"),
    ],
)
def test_an_unknown_field_is_listed_or_refused_by_its_path(
    fields: dict[str, Any], path: str
) -> None:
    for view in views(**fields):
        assert path in (warning_of(view) or "").removeprefix("not used: ").split(", ")
        assert unknown_of(view) == [path]
        with pytest.raises(JobFailed, match="unknown field") as refused:
            refuse_unknown(all_unknown(view.parse({}), view.others))
        assert refused.value.error.param == path


def test_a_misspelt_field_is_compared_with_the_fields_of_messages() -> None:
    for view in views(stop_sequence=["x"]):
        with pytest.raises(JobFailed, match=r"did you mean stop_sequences\?"):
            refuse_unknown(all_unknown(view.parse({}), view.others))


def test_blocks_that_are_sent_back_have_no_unknown_fields() -> None:
    for view in views(
        messages=ECHOED, system=[{**TEXT, **CACHED}], tools=[{**TOOL, "type": "custom", **CACHED}]
    ):
        assert (unknown_of(view), warning_of(view)) == ([], None)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"billing_policy": {"a": 1}}, "billing_policy"),
        ({"workspace_id": "a"}, "workspace_id"),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, "thinking.display"),
        ({"output_config": {"task_budget": {"total": 5}}}, "output_config.task_budget"),
        ({"tools": [{**TOOL, "strict": True}]}, "tools[0].strict"),
        ({"tools": [{**TOOL, "input_examples": [{"x": 1}]}]}, "tools[0].input_examples"),
        (
            {"messages": [ECHOED[1], {"role": "user", "content": [{**RESULT, "is_error": True}]}]},
            "messages[1].content[0].is_error",
        ),
    ],
)
def test_a_known_field_without_effect_is_listed_and_never_refused(
    fields: dict[str, Any], path: str
) -> None:
    for view in views(**fields):
        assert warning_of(view) == f"not used: {path}"
        assert unknown_of(view) == []


def test_fields_of_a_message_do_not_change_its_prompt() -> None:
    fields = {"temperature": 0.5, "stop_sequences": ["x"], "metadata": {"a": "b"}}
    _, view = views(**fields, service_tier="standard_only", seed=1)
    ignored = "service_tier, temperature, stop_sequences, metadata, seed"
    assert (warning_of(view), unknown_of(view)) == (f"not used: {ignored}", [])
    assert view.parse({}) == views()[1].parse({})
