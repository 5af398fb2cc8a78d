"""Messages and tools as chat templates expect them."""

from dataclasses import replace
from typing import Any

import httpx
import pytest
from api_support import ADAPTER, ScriptedWorker
from openai.types.chat import (
    ParsedChatCompletionMessage,
    ParsedFunction,
    ParsedFunctionToolCall,
)
from translated_jobs import ADMISSION, HI, chat
from weather_tool import BODY, OSAKA, TOOLS, URL

from api.requests.translate import chat_job, parse_chat
from shared.errors import ErrorCode, JobFailed
from shared.protocol.ids import AdapterVersion
from shared.protocol.jobs import Job
from shared.protocol.tools import CALL_ENDS, ToolChoice, ToolForm, ToolUse
from shared.store.adapters.registry import Registry

NAMED = {"type": "function", "function": {"name": "weather"}}


def messages_of(*messages: Any, **fields: Any) -> list[dict[str, Any]]:
    """Return the messages that the chat template gets for these messages of a request."""
    return [*(chat(messages=[*messages], **fields).messages or ())]


def content_of(content: Any, role: str = "user") -> str:
    """Return the text that the chat template gets for a message with this content."""
    text: str = messages_of({"role": role, "content": content})[0]["content"]
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


SYSTEM = {"role": "system", "content": "be brief"}
ANSWER = {"role": "assistant", "content": "yes"}
EMPTY, REFUSAL = {**ANSWER, "content": ""}, {**ANSWER, "content": None, "refusal": "I can't"}
OTHERS = [{**SYSTEM, "role": role, "name": "f"} for role in ("function", "latest_reminder", "king")]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({**SYSTEM, "role": "developer"}, SYSTEM),
        ({"role": "assistant"}, EMPTY),
        ({"role": "assistant", "tool_calls": []}, EMPTY),
        (REFUSAL, {**ANSWER, "content": "I can't"}),
        ({**REFUSAL, "content": "yes"}, ANSWER),
        ({**ANSWER, "reasoning_content": "why"}, {**ANSWER, "reasoning_content": "why"}),
        ({**ANSWER, "reasoning": "why"}, {**ANSWER, "reasoning_content": "why"}),
        *((message, message) for message in OTHERS),
    ],
)
def test_a_message_is_translated_for_the_chat_template(
    given: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert messages_of(HI, given) == [HI, expected]


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
    function = {"name": "f", "arguments": {}}
    assert messages_of(HI, echoed)[1] == {
        "role": "assistant",
        "content": "x",
        "tool_calls": [{"id": "a", "type": "function", "function": function}],
    }


def tools_of(**fields: Any) -> ToolUse:
    """Return the tools of the job for a chat with these fields."""
    used = chat(**{"tools": TOOLS, **fields}).tools
    assert used is not None
    return used


def test_tools_reach_the_worker_unchanged_unless_none_may_be_called() -> None:
    job = chat(tools=TOOLS)
    assert job.tools == ToolUse(tools=tuple(TOOLS), form=ToolForm.HERMES, choice=ToolChoice.AUTO)  # type: ignore[arg-type]
    assert job.sampling.stop == ()
    request = parse_chat({"model": "m", "messages": [HI], "tools": TOOLS, "tool_choice": "none"})
    for form in (ToolForm.HERMES, None):  # the chat template needs no form of calls
        assert chat_job(request, replace(ADMISSION, tool_form=form)).tools is None


def test_tools_are_refused_if_the_chat_template_does_not_show_them() -> None:
    request = parse_chat({"model": "m", "messages": [HI], "tools": TOOLS})
    with pytest.raises(JobFailed, match='leave them out, or send tool_choice "none"') as refused:
        chat_job(request, replace(ADMISSION, tool_form=None))
    error = refused.value.error
    assert (error.code, error.param) == (ErrorCode.UNSUPPORTED_PARAMETER, "tools")


OTHER_TOOL = {"type": "function", "function": {"name": "other", "description": None}}
ALLOWED = {"mode": "auto", "tools": [NAMED]}
REQUIRED = {"mode": "required", "tools": [NAMED]}


@pytest.mark.parametrize(
    ("choice", "tools", "needed", "name"),
    [
        ("required", [OTHER_TOOL, *TOOLS], "required", None),
        (NAMED, [OTHER_TOOL, *TOOLS], "required", "weather"),
        ({"type": "allowed_tools", **ALLOWED}, TOOLS, "auto", None),
        ({"type": "allowed_tools", **REQUIRED}, TOOLS, "required", None),
        ({"type": "allowed_tools", "allowed_tools": ALLOWED}, TOOLS, "auto", None),
        ({"type": "allowed_tools", "allowed_tools": REQUIRED}, TOOLS, "required", None),
    ],
)
def test_tool_choice_can_require_any_tool_or_a_named_one_or_restrict_the_tools(
    choice: Any, tools: list[Any], needed: str, name: str | None
) -> None:
    used = tools_of(tools=[OTHER_TOOL, *TOOLS], tool_choice=choice)
    assert (used.tools, used.choice, used.name) == (tuple(tools), needed, name)


def test_tools_need_no_parameters_and_are_shown_without_strict_and_unknown_fields() -> None:
    tool = {
        "type": "function",
        "function": {**OTHER_TOOL["function"], "colour": 1, "strict": True},  # type: ignore[dict-item]
        "cache_control": {"type": "ephemeral"},
    }
    assert tools_of(tools=[tool]).tools == (OTHER_TOOL,)


@pytest.mark.parametrize("choice", ["none", "auto", None])
def test_without_tools_a_choice_that_needs_none_is_accepted(choice: str | None) -> None:
    assert chat(tools=[], tool_choice=choice) == chat(tool_choice=choice) == chat()


@pytest.mark.parametrize(("form", "end"), CALL_ENDS.items())
def test_without_parallel_calls_an_answer_ends_after_the_first_one(
    form: ToolForm, end: str
) -> None:
    body = {"model": "m", "messages": [HI], "tools": TOOLS, "stop": ["x"]}
    request = parse_chat({**body, "parallel_tool_calls": False})
    job = chat_job(request, replace(ADMISSION, tool_form=form))
    assert job.tools is not None
    assert not job.tools.is_parallel
    assert job.sampling.stop == ("x", end)


def test_a_conversation_with_calls_is_translated_for_chat_templates() -> None:
    deep = "[" * 900 + "]" * 900
    written = {"a": OSAKA, "b": "{oops", "c": deep}
    calls = [
        {"id": id_, "type": "function", "function": {"name": "weather", "arguments": arguments}}
        for id_, arguments in written.items()
    ]
    found = messages_of(
        {**HI, "name": "bob"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "sunny"}]},
        {"role": "tool", "tool_call_id": "b", "content": "", "name": "other"},
        tools=TOOLS,
    )
    parsed = {"name": "weather", "arguments": {"city": "Osaka"}}
    called = [{**calls[0], "function": parsed}, *calls[1:]]
    assert found == [
        {**HI, "name": "bob"},
        {"role": "assistant", "content": "", "tool_calls": called},
        {"role": "tool", "content": "sunny", "tool_call_id": "a", "name": "weather"},
        {"role": "tool", "content": "", "tool_call_id": "b", "name": "other"},
    ]


async def taken(http: httpx.AsyncClient, worker: ScriptedWorker, **fields: Any) -> Job:
    """Return the job for a request with these fields."""
    reply, job = await worker.serve(http.post(URL, json={**BODY, **fields}))
    assert reply.status_code == 200
    return job.job


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
