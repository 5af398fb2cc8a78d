"""Messages and tools as chat templates expect them."""

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from api_support import BASE, ScriptedWorker
from translated_jobs import HI, chat
from weather_tool import ANSWER, BODY, OSAKA, TOOLS, URL

from shared.protocol.jobs import Job
from shared.protocol.results import Choice, FinishReason
from shared.protocol.tools import ToolChoice, ToolForm, ToolUse
from shared.store.registry import Registry

NAMED = {"type": "function", "function": {"name": "weather"}}


def test_the_role_developer_becomes_system() -> None:
    job = chat(messages=[{"role": "developer", "content": "be brief"}, HI])
    assert job.messages is not None
    assert job.messages[0] == {"role": "system", "content": "be brief"}


def test_text_parts_are_joined_by_line_breaks() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    job = chat(messages=[{"role": "user", "content": parts}])
    assert job.messages == ({"role": "user", "content": "a\nb"},)


def test_an_answer_can_be_sent_back_as_a_message() -> None:
    answer = {"role": "assistant", "content": "hello", "tool_calls": None, "refusal": None}
    job = chat(messages=[HI, answer, HI])
    assert job.messages is not None
    assert job.messages[1] == {"role": "assistant", "content": "hello"}


async def taken(http: httpx.AsyncClient, worker: ScriptedWorker, **fields: Any) -> Job:
    """Return the job for a request with these fields."""
    request = asyncio.create_task(http.post(URL, json={**BODY, **fields}))
    job = await worker.take()
    await worker.answer(job)
    assert (await request).status_code == 200
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
    request = asyncio.create_task(
        client.chat.completions.create(model="extract", messages=[HI], tools=TOOLS)
    )
    job = await worker.take()
    await worker.finish(job, Choice(text=ANSWER, finish=FinishReason.STOP, ids=(1,)))
    message = (await request).choices[0].message
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
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (
        *(400, "unsupported_parameter"),
        "tools",
    )
    assert 'tool_choice "none"' in error["message"]
    assert (await taken(http, worker, tool_choice="none")).tools is None
