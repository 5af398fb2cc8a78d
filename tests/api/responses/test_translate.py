"""Fields of /v1/responses: unknown ones, those that clients send back, and the input's tokens."""

from typing import Any

import pytest

from api.requests.ignored_fields import all_unknown, refuse_unknown, warning
from api.requests.viewed import ViewedRequest
from api.responses.translate import parse_prompt, parse_response, viewed_prompt, viewed_response
from shared.errors import JobFailed

BODY = {"model": "m", "input": "hi"}
TOOL: dict[str, Any] = {"type": "function", "name": "f", "parameters": {"type": "object"}}
TEXT = {"type": "input_text", "text": "hi"}
SCHEMA = {"type": "json_schema", "name": "s", "schema": {"type": "object", "x": {"x": 1}}}
NAMED = {"type": "function", "name": "f"}
EARLIER = [{"type": "message", "role": "user", "content": [TEXT]}]
ECHOED = [
    {"type": "message", "role": "user", "content": [TEXT], "id": "msg_0", "status": "completed"},
    {
        "id": "rs_1",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "y"}],
        "content": [{"type": "reasoning_text", "text": "y"}],
        "encrypted_content": "z",
        "status": "completed",
    },
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "phase": "final_answer",
        "content": [
            {
                "type": "output_text",
                "text": "a",
                "annotations": [{"type": "url_citation", "x": 1}],
                "logprobs": [{"token": "a", "x": 1}],
            },
            {"type": "refusal", "refusal": "no"},
        ],
    },
    {
        "id": "fc_1",
        "type": "function_call",
        "call_id": "c",
        "name": "f",
        "arguments": '{"x": 1}',
        "status": "completed",
        "namespace": "n",
        "caller": {"type": "direct"},
        "async": False,
    },
    {
        "id": "fco_1",
        "type": "function_call_output",
        "call_id": "c",
        "output": [TEXT],
        "status": "completed",
    },
]
"""Items as OpenAI's API and this server return them."""


def viewed(**fields: Any) -> ViewedRequest:
    return viewed_response(parse_response({**BODY, **fields}), [])


def counted(**fields: Any) -> ViewedRequest:
    return viewed_prompt(parse_prompt({**BODY, **fields}), [])


def warning_of(view: ViewedRequest) -> str | None:
    return warning(view.parse({}), view.others)


def unknown_of(view: ViewedRequest) -> list[str]:
    return [field.path for field in all_unknown(view.parse({}), view.others)]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"colour": 1}, "colour"),
        ({"input": [{"role": "user", "content": "hi", "x": 1}]}, "input[0].x"),
        (
            {"input": [{"role": "user", "content": [TEXT, {**TEXT, "x": 1}]}]},
            "input[0].content[1].x",
        ),
        ({"input": [{**ECHOED[3], "x": 1}, ECHOED[4]]}, "input[0].x"),
        (
            {"input": [ECHOED[3], {**ECHOED[4], "output": [{**TEXT, "x": 1}]}]},
            "input[1].output[0].x",
        ),
        (
            {"input": [{**ECHOED[1], "content": [{"text": "y", "x": 1}]}, ECHOED[2]]},
            "input[0].content[0].x",
        ),
        ({"tools": [{**TOOL, "x": 1}]}, "tools[0].x"),
        ({"tools": [TOOL], "tool_choice": {**NAMED, "x": 1}}, "tool_choice.x"),
        (
            {
                "tools": [TOOL],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "auto",
                    "tools": [{**NAMED, "x": 1}],
                },
            },
            "tool_choice.tools[0].x",
        ),
        ({"text": {"format": {**SCHEMA, "x": 1}}}, "text.format.x"),
        ({"text": {"x": 1}}, "text.x"),
        ({"reasoning": {"x": 1}}, "reasoning.x"),
    ],
)
def test_an_unknown_field_is_listed_or_refused_by_its_path(
    fields: dict[str, Any], path: str
) -> None:
    for view in (viewed(**fields), counted(**fields)):
        assert path in (warning_of(view) or "").removeprefix("not used: ").split(", ")
        assert unknown_of(view) == [path]
        with pytest.raises(JobFailed, match="unknown field") as refused:
            refuse_unknown(all_unknown(view.parse({}), view.others))
        assert refused.value.error.param == path


def test_a_misspelt_field_is_compared_with_the_fields_of_responses() -> None:
    view = viewed(max_output_token=5)
    with pytest.raises(JobFailed, match=r"did you mean max_output_tokens\?"):
        refuse_unknown(all_unknown(view.parse({}), view.others))


def test_items_that_are_sent_back_have_no_unknown_fields() -> None:
    for view in (viewed(input=ECHOED, tools=[TOOL]), counted(input=ECHOED, tools=[TOOL])):
        assert (unknown_of(view), warning_of(view)) == ([], None)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"reasoning": {"context": "all_turns"}}, "reasoning.context"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"access_programs": {"cyber": "standard"}}, "access_programs"),
        ({"tools": [{**TOOL, "strict": True}]}, "tools[0].strict"),
        ({"tools": [{**TOOL, "defer_loading": True}]}, "tools[0].defer_loading"),
        (
            {
                "input": [
                    {"role": "user", "content": [{**TEXT, "prompt_cache_breakpoint": {"a": 1}}]}
                ]
            },
            "input[0].content[0].prompt_cache_breakpoint",
        ),
    ],
)
def test_a_known_field_without_effect_is_listed_and_never_refused(
    fields: dict[str, Any], path: str
) -> None:
    for view in (viewed(**fields), counted(**fields)):
        assert warning_of(view) == f"not used: {path}"
        assert unknown_of(view) == []


def test_free_form_objects_have_no_unknown_fields() -> None:
    view = viewed(metadata={"x": "1"}, text={"format": SCHEMA}, tools=[TOOL])
    assert (unknown_of(view), warning_of(view)) == ([], None)


def test_fields_of_the_answer_do_not_change_its_prompt() -> None:
    view = counted(
        temperature=0.5,
        max_output_tokens=5,
        stream=True,
        store=False,
        seed=1,
        parallel_tool_calls=False,
        text={"format": SCHEMA},
    )
    ignored = "temperature, max_output_tokens, stream, store, seed, parallel_tool_calls"
    assert warning_of(view) == f"not used: {ignored}, text.format"
    assert unknown_of(view) == []
    plain = counted()
    assert view.parse({}) == plain.parse({})


def test_fields_of_the_prompt_are_those_of_a_response() -> None:
    fields: dict[str, Any] = {
        "input": ECHOED,
        "instructions": "Be brief.",
        "tools": [TOOL],
        "tool_choice": "none",
        "reasoning": {"effort": "low"},
        "chat_template_kwargs": {"a": 1},
        "enable_thinking": True,
    }
    whole, prompt = viewed(**fields).parse({}), counted(**fields).parse({})
    names = ("messages", "tools", "tool_choice", "reasoning_effort")
    for name in (*names, "chat_template_kwargs", "enable_thinking"):
        assert getattr(whole, name) == getattr(prompt, name)


def test_the_input_may_be_left_out_after_an_earlier_response() -> None:
    prompt = parse_prompt({"model": "m", "previous_response_id": "resp_1"})
    assert [message.role for message in viewed_prompt(prompt, EARLIER).parse({}).messages] == [
        "user"
    ]
    with pytest.raises(JobFailed, match="input"):
        viewed_prompt(prompt, [])


@pytest.mark.parametrize("name", ["personality", "conversation", "n_predict", "max_tokens"])
def test_a_field_that_would_change_the_prompt_or_has_another_name_is_refused(name: str) -> None:
    with pytest.raises(JobFailed, match=name):
        counted(**{name: 5}).parse({})
