"""Calls of tools, as clients see them."""

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from api_support import BASE, ScriptedWorker
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from api.render.tool_deltas import ToolAnswers
from shared.protocol.ids import JobId
from shared.protocol.jobs import Job
from shared.protocol.results import Choice, FinishReason
from shared.protocol.tools import ToolChoice, ToolForm, ToolUse
from shared.store.queue import Queue
from shared.store.registry import Registry

HI: ChatCompletionMessageParam = {"role": "user", "content": "Weather in Osaka and Oslo?"}
FUNCTION: Any = {"name": "weather", "parameters": {"type": "object", "properties": {}}}
TOOLS: list[ChatCompletionToolParam] = [{"type": "function", "function": FUNCTION}]
BODY = {"model": "extract", "messages": [HI], "tools": TOOLS}
URL = "/v1/chat/completions"
STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH
OSAKA, OSLO = '{"city": "Osaka"}', '{"city": "Oslo"}'


def call(arguments: str) -> str:
    return f'<tool_call>\n{{"name": "weather", "arguments": {arguments}}}\n</tool_call>'


ANSWER = f"Let me see.\n{call(OSAKA)}\n{call(OSLO)}"


async def answered(
    http: httpx.AsyncClient, worker: ScriptedWorker, text: str, finish: FinishReason = STOP
) -> Any:
    """The whole answer to `BODY` by a model that writes `text`."""
    request = asyncio.create_task(http.post(URL, json=BODY))
    job = await worker.take()
    await worker.finish(job, Choice(text=text, finish=finish, ids=(1, 2)))
    return (await request).json()["choices"][0]


async def test_a_whole_answer_has_calls_beside_its_text(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    choice = await answered(http, worker, ANSWER)
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Let me see."
    calls = choice["message"]["tool_calls"]
    assert [c["type"] for c in calls] == ["function"] * 2
    assert [c["function"] for c in calls] == [
        {"name": "weather", "arguments": OSAKA},
        {"name": "weather", "arguments": OSLO},
    ]
    assert len({c["id"] for c in calls}) == 2
    assert all(c["id"].startswith("call_") for c in calls)


async def test_an_answer_of_calls_alone_has_no_content(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    assert (await answered(http, worker, call(OSAKA)))["message"]["content"] is None


async def test_an_answer_that_calls_nothing_is_text(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    choice = await answered(http, worker, "Sunny. ")
    assert choice["message"] == {"role": "assistant", "content": "Sunny. ", "tool_calls": None}
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize("finish", [STOP, LENGTH])
async def test_a_malformed_call_comes_back_as_content(
    http: httpx.AsyncClient, worker: ScriptedWorker, finish: FinishReason
) -> None:
    cut = call(OSAKA)[:-20]
    choice = await answered(http, worker, cut, finish)
    assert choice["message"] == {"role": "assistant", "content": cut, "tool_calls": None}
    assert choice["finish_reason"] == finish


async def test_an_answer_cut_behind_a_call_says_so(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    choice = await answered(http, worker, f"{call(OSAKA)}\nAnd", LENGTH)
    assert len(choice["message"]["tool_calls"]) == 1
    assert choice["finish_reason"] == "length"


async def test_a_stream_names_the_tool_first_and_then_brings_its_arguments_in_pieces(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    request = asyncio.create_task(http.post(URL, json={**BODY, "stream": True}))
    job = await worker.take()
    text = ["Hm", '<tool_call>{"name": "weather", "argu', 'ments": {"city"', ': "Osaka"}}', ""]
    for i, part in enumerate(text):
        await worker.tokens(job, i, (i,), part, STOP if part == "" else None)
    await worker.finish(job)
    chunks = _chunks(await request)
    (start,) = chunks[2]["delta"]["tool_calls"]
    assert start.pop("id").startswith("call_")
    assert start == {
        "index": 0,
        "type": "function",
        "function": {"name": "weather", "arguments": ""},
    }
    assert [chunk["delta"] for chunk in (*chunks[:2], *chunks[3:])] == [
        {"role": "assistant", "content": ""},
        {"content": "Hm"},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ': "Osaka"}'}}]},
        {},
    ]
    assert [chunk["finish_reason"] for chunk in chunks] == [None] * 5 + ["tool_calls"]


def _chunks(response: httpx.Response) -> list[Any]:
    data = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return [httpx.Response(200, text=text).json()["choices"][0] for text in data[:-1]]


async def test_openais_client_puts_a_stream_together_to_what_a_whole_answer_says(
    client: openai.AsyncOpenAI, worker: ScriptedWorker
) -> None:
    async def stream() -> Any:
        async with client.chat.completions.stream(
            model="extract", messages=[HI], tools=TOOLS
        ) as stream:
            return await stream.get_final_completion()

    request = asyncio.create_task(stream())
    job = await worker.take()
    for i, char in enumerate(ANSWER):
        await worker.tokens(job, i, (i,), char, STOP if i == len(ANSWER) - 1 else None)
    await worker.finish(job)
    (choice,) = (await request).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me see."
    assert [c.function.arguments for c in choice.message.tool_calls] == [OSAKA, OSLO]


async def test_a_call_goes_on_when_its_worker_dies_in_the_middle(
    http: httpx.AsyncClient, queue: Queue, worker: ScriptedWorker
) -> None:
    other = await ScriptedWorker.start(queue)
    request = asyncio.create_task(http.post(URL, json={**BODY, "stream": True}))
    job = await worker.take()
    text = call(OSAKA)
    await worker.tokens(job, 0, (1,), text[:45])
    await queue.release(worker.id, [job.job.id])
    moved = await other.take()
    await other.tokens(moved, 1, (2,), text[45:], STOP)
    await other.finish(moved)
    deltas = [chunk["delta"] for chunk in _chunks(await request)]
    calls = [part for delta in deltas for part in delta.get("tool_calls", ())]
    assert "".join(part["function"]["arguments"] for part in calls) == OSAKA
    assert [part["function"].get("name") for part in calls].count("weather") == 1


async def test_the_choices_of_a_stream_call_apart(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    request = asyncio.create_task(http.post(URL, json={**BODY, "stream": True, "n": 2}))
    job = await worker.take()
    half = len(call(OSAKA)) // 2
    await worker.tokens(job, 0, (1,), call(OSAKA)[:half], choice=0)
    await worker.tokens(job, 0, (1,), call(OSLO)[:half], choice=1)
    await worker.tokens(job, 1, (2,), call(OSLO)[half:], STOP, choice=1)
    await worker.tokens(job, 1, (2,), call(OSAKA)[half:], STOP, choice=0)
    await worker.finish(job)
    arguments, ids = ["", ""], set()
    for chunk in _chunks(await request):
        for part in chunk["delta"].get("tool_calls", ()):
            arguments[chunk["index"]] += part["function"]["arguments"]
            ids |= {part["id"]} if "id" in part else set()
    assert arguments == [OSAKA, OSLO]
    assert len(ids) == 2


async def taken(http: httpx.AsyncClient, worker: ScriptedWorker, **fields: Any) -> Job:
    """The job that a request with these fields becomes."""
    request = asyncio.create_task(http.post(URL, json={**BODY, **fields}))
    job = await worker.take()
    await worker.answer(job)
    assert (await request).status_code == 200
    return job.job


async def test_the_worker_gets_the_tools_as_they_were_sent(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    job = await taken(http, worker)
    assert job.tools == ToolUse(tools=tuple(TOOLS), form=ToolForm.HERMES, choice=ToolChoice.AUTO)  # type: ignore[arg-type]
    assert job.sampling.stop == ()


async def test_with_tool_choice_none_no_tool_is_shown_and_nothing_is_a_call(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    assert (await taken(http, worker, tool_choice="none")).tools is None


NAMED = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize(("choice", "name"), [("required", None), (NAMED, "weather")])
async def test_a_call_can_be_required_of_any_tool_or_of_one(
    http: httpx.AsyncClient, worker: ScriptedWorker, choice: Any, name: str | None
) -> None:
    job = await taken(http, worker, tool_choice=choice)
    assert job.tools is not None
    assert (job.tools.choice, job.tools.name) == (ToolChoice.REQUIRED, name)


async def test_without_parallel_calls_an_answer_ends_behind_the_first_one(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    job = await taken(http, worker, parallel_tool_calls=False, stop=["x"])
    assert job.tools is not None
    assert not job.tools.is_parallel
    assert job.sampling.stop == ("x", "</tool_call>")


async def test_a_conversation_with_calls_reaches_the_worker_as_templates_take_it(
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


async def test_an_answer_of_openais_client_can_be_sent_back(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    request = asyncio.create_task(
        client.chat.completions.create(model="extract", messages=[HI], tools=TOOLS)
    )
    job = await worker.take()
    await worker.finish(job, Choice(text=ANSWER, finish=STOP, ids=(1,)))
    message = (await request).choices[0].message
    job_after = await taken(http, worker, messages=[HI, message.model_dump()])
    assert job_after.messages is not None
    assert [c["function"]["arguments"] for c in job_after.messages[1]["tool_calls"]] == [
        {"city": "Osaka"},
        {"city": "Oslo"},
    ]


async def test_a_model_without_tools_refuses_them_and_says_what_to_do(
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


def test_ids_of_calls_are_the_same_whenever_an_answer_is_read() -> None:
    use = ToolUse(tools=tuple(TOOLS), form=ToolForm.HERMES)  # type: ignore[arg-type]
    one, other = (
        ToolAnswers(JobId("a"), use, stream=False).message(0, ANSWER)["tool_calls"]
        for _ in range(2)
    )
    assert one == other
