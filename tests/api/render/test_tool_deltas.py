"""Answers with tool calls, complete and streamed."""

import asyncio
from typing import Any

import httpx
import openai
import pytest
from api_support import ScriptedWorker
from sse_events import sse_events
from translated_jobs import HI
from weather_tool import ANSWER, BODY, OSAKA, OSLO, TOOLS, URL, call

from api.render.tool_deltas import ToolAnswers
from shared.protocol.ids import JobId
from shared.protocol.results import Choice, FinishReason
from shared.protocol.tools import ToolForm, ToolUse
from shared.store.jobs.queue import Queue

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


async def test_an_answer_with_only_calls_has_no_content(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    assert (await answered(http, worker, call(OSAKA)))["message"]["content"] is None


async def test_an_answer_without_calls_is_text(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    choice = await answered(http, worker, "Sunny. ")
    assert choice["message"] == {"role": "assistant", "content": "Sunny. ", "tool_calls": None}
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize("finish", [STOP, LENGTH])
async def test_a_malformed_call_is_returned_as_content(
    http: httpx.AsyncClient, worker: ScriptedWorker, finish: FinishReason
) -> None:
    cut = call(OSAKA)[:-20]
    choice = await answered(http, worker, cut, finish)
    assert choice["message"] == {"role": "assistant", "content": cut, "tool_calls": None}
    assert choice["finish_reason"] == finish


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


async def test_a_call_continues_when_its_worker_dies_in_the_middle(
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


async def test_the_choices_of_a_stream_have_separate_calls(
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


def test_call_ids_are_the_same_whenever_an_answer_is_rendered() -> None:
    use = ToolUse(tools=tuple(TOOLS), form=ToolForm.HERMES)  # type: ignore[arg-type]
    one, other = (
        ToolAnswers(JobId("a"), use, stream=False).message(0, ANSWER)["tool_calls"]
        for _ in range(2)
    )
    assert one == other
