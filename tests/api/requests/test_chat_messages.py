"""Messages and tools as chat templates expect them."""

from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from api_support import ADAPTER, BASE, ScriptedWorker, error_of
from openai.types.chat import (
    ParsedChatCompletionMessage,
    ParsedFunction,
    ParsedFunctionToolCall,
)
from translated_jobs import HI, chat
from weather_tool import ANSWER, BODY, OSAKA, TOOLS, URL

from shared.protocol.ids import AdapterVersion
from shared.protocol.jobs import Job
from shared.protocol.tools import CALL_ENDS, ToolChoice, ToolForm, ToolUse
from shared.store.adapters.registry import Registry

NAMED = {"type": "function", "function": {"name": "weather"}}


def test_the_role_developer_becomes_system() -> None:
    job = chat(messages=[{"role": "developer", "content": "be brief"}, HI])
    assert job.messages is not None
    assert job.messages[0] == {"role": "system", "content": "be brief"}


def test_text_parts_are_joined_by_line_breaks() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    job = chat(messages=[{"role": "user", "content": parts}])
    assert job.messages == ({"role": "user", "content": "a\nb"},)


def content_of(content: Any, role: str = "user") -> str:
    """Return the text that the chat template gets for a message with this content."""
    job = chat(messages=[{"role": role, "content": content}])
    assert job.messages is not None
    text: str = job.messages[0]["content"]
    return text


@pytest.mark.parametrize(
    "part",
    [
        "hi",
        {"type": "text", "text": "hi"},
        {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}},
        {"type": "input_text", "text": "hi"},
        {"type": "output_text", "text": "hi", "annotations": []},
        {"type": "refusal", "refusal": "hi"},
        {"type": "thinking", "thinking": "hi", "signature": "x"},
    ],
)
def test_parts_of_every_type_of_text_are_text(part: Any) -> None:
    assert content_of([{"type": "text", "text": "a"}, part]) == "a\nhi"


@pytest.mark.parametrize("content", [None, [], "", [{"type": "text", "text": None}]])
@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_a_message_without_content_has_an_empty_text(content: Any, role: str) -> None:
    assert content_of(content, role) == ""


def test_an_assistant_message_needs_neither_content_nor_calls() -> None:
    job = chat(messages=[HI, {"role": "assistant"}, {"role": "assistant", "tool_calls": []}])
    assert job.messages == (HI, *[{"role": "assistant", "content": ""}] * 2)


def test_a_refusal_is_the_text_of_an_answer_without_content() -> None:
    refusal = {"role": "assistant", "content": None, "refusal": "I can't"}
    job = chat(messages=[refusal, {**refusal, "content": "yes"}])
    assert job.messages is not None
    assert [message["content"] for message in job.messages] == ["I can't", "yes"]


@pytest.mark.parametrize("role", ["function", "latest_reminder", "king"])
def test_other_roles_are_passed_to_the_chat_template(role: str) -> None:
    message = {"role": role, "content": "x", "name": "f"}
    assert chat(messages=[HI, message]).messages == (HI, message)


def test_the_openai_clients_own_message_can_be_sent_back() -> None:
    call = ParsedFunctionToolCall(
        id="a",
        type="function",
        function=ParsedFunction(name="f", arguments="{}", parsed_arguments={"a": 1}),
    )
    answer: ParsedChatCompletionMessage[Any] = ParsedChatCompletionMessage(
        role="assistant", content="x", parsed={"a": 1}, tool_calls=[call]
    )
    echoed = {**answer.model_dump(), "annotations": [], "reasoning_details": [{"a": 1}]}
    job = chat(messages=[HI, echoed])
    assert job.messages is not None
    function = {"name": "f", "arguments": {}}
    assert job.messages[1] == {
        "role": "assistant",
        "content": "x",
        "tool_calls": [{"id": "a", "type": "function", "function": function}],
    }


async def taken(http: httpx.AsyncClient, worker: ScriptedWorker, **fields: Any) -> Job:
    """Return the job for a request with these fields."""
    reply, job = await worker.serve(http.post(URL, json={**BODY, **fields}))
    assert reply.status_code == 200
    return job.job


async def test_tools_reach_the_worker_unchanged(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    job = await taken(http, worker)
    assert job.tools == ToolUse(tools=tuple(TOOLS), form=ToolForm.HERMES, choice=ToolChoice.AUTO)  # type: ignore[arg-type]
    assert job.sampling.stop == ()


async def test_with_tool_choice_none_the_worker_gets_no_tools(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    assert (await taken(http, worker, tool_choice="none")).tools is None


@pytest.mark.parametrize(("choice", "name"), [("required", None), (NAMED, "weather")])
async def test_tool_choice_can_require_any_tool_or_a_named_one(
    http: httpx.AsyncClient, worker: ScriptedWorker, choice: Any, name: str | None
) -> None:
    job = await taken(http, worker, tool_choice=choice)
    assert job.tools is not None
    assert (job.tools.choice, job.tools.name) == (ToolChoice.REQUIRED, name)


OTHER_TOOL = {"type": "function", "function": {"name": "other", "description": None}}


@pytest.mark.parametrize("mode", ["auto", "required"])
@pytest.mark.parametrize("is_nested", [True, False])
async def test_allowed_tools_restrict_the_tools(
    http: httpx.AsyncClient, worker: ScriptedWorker, mode: str, is_nested: bool
) -> None:
    spec = {"mode": mode, "tools": [NAMED]}
    choice = {"type": "allowed_tools", **({"allowed_tools": spec} if is_nested else spec)}
    job = await taken(http, worker, tools=[OTHER_TOOL, *TOOLS], tool_choice=choice)
    assert job.tools is not None
    assert (job.tools.tools, job.tools.choice, job.tools.name) == (tuple(TOOLS), mode, None)


async def test_tools_need_no_parameters_and_are_shown_without_strict_and_unknown_fields(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    tool = {
        "type": "function",
        "function": {**OTHER_TOOL["function"], "colour": 1, "strict": True},
        "cache_control": {"type": "ephemeral"},
    }
    job = await taken(http, worker, tools=[tool])
    assert job.tools is not None
    assert job.tools.tools == (OTHER_TOOL,)


@pytest.mark.parametrize("choice", ["none", "auto", None])
def test_without_tools_a_choice_that_needs_none_is_accepted(choice: str | None) -> None:
    assert chat(tools=[], tool_choice=choice) == chat(tool_choice=choice) == chat()


async def test_without_parallel_calls_an_answer_ends_after_the_first_one(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    job = await taken(http, worker, parallel_tool_calls=False, stop=["x"])
    assert job.tools is not None
    assert not job.tools.is_parallel
    assert job.sampling.stop == ("x", "</tool_call>")


async def test_a_conversation_with_calls_is_translated_for_chat_templates(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    function = {"name": "weather", "arguments": OSAKA}
    broken = {"name": "weather", "arguments": "{oops"}
    calls = [
        {"id": "a", "type": "function", "function": function},
        {"id": "b", "type": "function", "function": broken},
    ]
    messages = [
        {**HI, "name": "bob"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "sunny"}]},
        {"role": "tool", "tool_call_id": "b", "content": "", "name": "other"},
    ]
    job = await taken(http, worker, messages=messages)
    parsed = {"name": "weather", "arguments": {"city": "Osaka"}}
    assert job.messages == (
        {**HI, "name": "bob"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{**calls[0], "function": parsed}, calls[1]],
        },
        {"role": "tool", "content": "sunny", "tool_call_id": "a", "name": "weather"},
        {"role": "tool", "content": "", "tool_call_id": "b", "name": "other"},
    )


async def test_arguments_that_are_nested_too_deeply_stay_text(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    deep = "[" * 900 + "]" * 900
    calls = [{"id": "a", "type": "function", "function": {"name": "weather", "arguments": deep}}]
    messages = [HI, {"role": "assistant", "content": None, "tool_calls": calls}]
    job = await taken(http, worker, messages=messages)
    assert job.messages is not None
    assert job.messages[1]["tool_calls"] == calls


async def test_an_answer_read_by_openais_client_can_be_sent_back(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    asked = client.chat.completions.create(model="extract", messages=[HI], tools=TOOLS)
    answer, _ = await worker.serve(asked, ANSWER)
    message = answer.choices[0].message
    job_after = await taken(http, worker, messages=[HI, message.model_dump()])
    assert job_after.messages is not None
    assert [c["function"]["arguments"] for c in job_after.messages[1]["tool_calls"]] == [
        {"city": "Osaka"},
        {"city": "Oslo"},
    ]


async def test_tools_are_refused_if_the_chat_template_has_none(
    http: httpx.AsyncClient, registry: Registry, worker: ScriptedWorker
) -> None:
    await registry.set_base(replace(BASE, tool_form=None))
    response = await http.post(URL, json=BODY)
    assert error_of(response) == (400, "unsupported_parameter", "tools")
    assert 'tool_choice "none"' in response.json()["error"]["message"]
    assert (await taken(http, worker, tool_choice="none")).tools is None


async def test_an_adapters_own_template_decides_the_form_of_its_calls(
    http: httpx.AsyncClient, registry: Registry, worker: ScriptedWorker
) -> None:
    own = replace(
        ADAPTER, name="own", version=AdapterVersion("own@3"), tool_form=ToolForm.QWEN3_CODER
    )
    await registry.add_adapter(own)
    tools = (await taken(http, worker, model="own")).tools
    assert tools is not None
    assert tools.form is ToolForm.QWEN3_CODER
    base = (await taken(http, worker)).tools
    assert base is not None
    assert base.form is ToolForm.HERMES


async def test_an_answer_with_one_call_stops_at_its_end(
    http: httpx.AsyncClient, registry: Registry, worker: ScriptedWorker
) -> None:
    for form, end in CALL_ENDS.items():
        await registry.set_base(replace(BASE, tool_form=form))
        job = await taken(http, worker, parallel_tool_calls=False)
        assert job.sampling.stop == (end,)
