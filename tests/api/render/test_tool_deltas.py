"""Answers with tool calls, complete and streamed."""

import asyncio
from typing import Any

import httpx
import openai
from api_support import ScriptedWorker
from sse_events import sse_events
from translated_jobs import HI
from weather_tool import ANSWER, BODY, OSAKA, OSLO, TOOLS, URL, call

from api.render.tool_deltas import ToolAnswers
from shared.protocol.ids import JobId
from shared.protocol.results import Choice, FinishReason
from shared.protocol.tools import ToolForm, ToolUse

STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH


async def answered(
    http: httpx.AsyncClient, worker: ScriptedWorker, text: str, finish: FinishReason = STOP
) -> Any:
    """Return the choice of the complete answer to `BODY` if the model writes `text`."""
    request = asyncio.create_task(http.post(URL, json=BODY))
    job = await worker.take()
    await worker.finish(job, Choice(text=text, finish=finish, ids=(1, 2)))
    return (await request).json()["choices"][0]


async def test_a_complete_answer_has_text_and_calls(
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


async def test_an_answer_cut_after_a_call_has_the_finish_reason_length(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    choice = await answered(http, worker, f"{call(OSAKA)}\nAnd", LENGTH)
    assert len(choice["message"]["tool_calls"]) == 1
    assert choice["finish_reason"] == "length"


async def test_a_stream_has_the_tool_name_first_and_then_its_arguments_in_pieces(
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
    *chunks, _ = sse_events(response.text)
    return [chunk.json["choices"][0] for chunk in chunks]


async def test_openais_client_assembles_a_stream_to_the_complete_answer(
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


def test_call_ids_are_the_same_whenever_an_answer_is_rendered() -> None:
    use = ToolUse(tools=tuple(TOOLS), form=ToolForm.HERMES)  # type: ignore[arg-type]
    one, other = (
        ToolAnswers(JobId("a"), use, stream=False).message(0, ANSWER)["tool_calls"]
        for _ in range(2)
    )
    assert one == other
