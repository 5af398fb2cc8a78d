"""/v1/messages, in Anthropic's format, while a test plays the worker."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest
from api_support import BASE, ScriptedWorker
from pydantic import SecretStr
from raw_client import with_settings
from sse_events import sse_events
from typed_events import folded
from weather_tool import ANSWER, OSAKA, OSLO

from shared.protocol.jobs import ClaimedJob
from shared.protocol.results import Choice, FinishReason
from shared.reasoning_form import ReasoningForm
from shared.store.adapters.registry import Registry

URL = "/v1/messages"
BODY = {"model": "extract", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
WEATHER = {"name": "weather", "description": "Looks.", "input_schema": {"type": "object"}}
Answered = Callable[..., Awaitable[tuple[httpx.Response, ClaimedJob]]]
KEY = "red:" + "r" * 20


@pytest.fixture
def answered(http: httpx.AsyncClient, worker: ScriptedWorker) -> Answered:
    """A function that sends a request, answers its job, and returns the response and the job."""
    headers = {"anthropic-version": "2023-06-01", "x-api-key": "none"}

    def answer(text: str = "hello", **request: Any) -> Any:
        return worker.serve(http.post(URL, json={**BODY, **request}, headers=headers), text)

    return answer


async def test_text(answered: Answered) -> None:
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    reply, job = await answered(system=system, temperature=0.5, top_k=3)
    assert reply.json() == {
        "id": f"msg_{job.job.id}",
        "type": "message",
        "role": "assistant",
        "model": "extract",
        "content": [{"type": "text", "text": "hello", "citations": None}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 3,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 2,
        },
    }
    sampling = job.job.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_k) == (9, 0.5, 3)
    assert [m["content"] for m in job.job.messages or ()] == ["Be brief.", "hi"]


async def test_blocks_become_messages(answered: Answered) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "weather?"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Osaka"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "sunny"},
                {"type": "text", "text": "And?"},
            ],
        },
    ]
    _, job = await answered(messages=messages, tools=[WEATHER])
    first, assistant, tool, last = job.job.messages or ()
    assert (first["content"], last["content"]) == ("weather?", "And?")
    assert (assistant["content"], assistant["reasoning_content"]) == ("Let me see.", "hm")
    assert assistant["tool_calls"][0]["function"]["arguments"] == {"city": "Osaka"}
    assert (tool["role"], tool["content"], tool["tool_call_id"]) == ("tool", "sunny", "t1")


async def test_tool_calls(http: httpx.AsyncClient, answered: Answered) -> None:
    choice = {"type": "any", "disable_parallel_tool_use": False}
    reply, job = await answered(ANSWER, tools=[WEATHER], tool_choice=choice)
    text, *calls = reply.json()["content"]
    assert text["text"] == "Let me see."
    assert [call["input"] for call in calls] == [orjson.loads(OSAKA), orjson.loads(OSLO)]
    assert reply.json()["stop_reason"] == "tool_use"
    assert job.job.tools is not None
    assert job.job.tools.choice == "required"
    stored = (await http.get(f"/v1/jobs/msg_{job.job.id}")).json()
    assert stored["answer"] == reply.json()


async def test_a_stop_sequence_is_named_and_left_out(answered: Answered) -> None:
    stops = {"stop_sequences": ["END"]}
    reply, job = await answered("so END", **stops)
    assert (reply.json()["stop_reason"], reply.json()["stop_sequence"]) == ("stop_sequence", "END")
    assert reply.json()["content"][0]["text"] == "so "
    assert (job.job.sampling.stop, job.job.sampling.includes_stop) == (("END",), True)
    streamed, _ = await answered("so END", stream=True, **stops)
    events = {event.event: event.json for event in sse_events(streamed.text)}
    assert events["message_delta"]["delta"]["stop_sequence"] == "END"
    assert "END" not in events["content_block_delta"]["delta"]["text"]


async def test_an_answer_that_is_too_long(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    posting, job = await worker.sent(http.post(URL, json=BODY))
    await worker.finish(job, Choice(text="hello", finish=FinishReason.LENGTH, ids=(1, 2)))
    assert (await posting).json()["stop_reason"] == "max_tokens"


async def test_the_last_message_of_the_assistant_is_continued(answered: Answered) -> None:
    prefilled = [*BODY["messages"], {"role": "assistant", "content": "{"}]  # type: ignore[misc]
    _, job = await answered(messages=prefilled)
    assert job.job.prompt_end == "message"


async def test_the_model_thinks_only_if_asked(answered: Answered) -> None:
    enabled = {"type": "enabled", "budget_tokens": 9}
    for thinking, expected in ((None, False), ({"type": "disabled"}, False), (enabled, True)):
        _, job = await answered(thinking=thinking)
        assert job.job.template_kwargs == {"enable_thinking": expected, "thinking": expected}


async def test_a_stream_has_anthropics_events(answered: Answered) -> None:
    reply, _ = await answered(ANSWER, tools=[WEATHER], stream=True)
    whole, _ = await answered(ANSWER, tools=[WEATHER])
    names = [event.event for event in sse_events(reply.text)]
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    once = [name for i, name in enumerate(names) if names[i - 1 : i] != [name]]
    assert once == ["message_start", "ping", *block * 3, "message_delta", "message_stop"]
    starts = [e.json for e in sse_events(reply.text) if e.event == "content_block_start"]
    deltas = [kind for kind, *_ in folded(sse_events(reply.text)) if kind == block[1]]
    assert [s["content_block"]["type"] for s in starts] == ["text", "tool_use", "tool_use"]
    assert len(deltas) == len(whole.json()["content"])


async def test_a_stream_begins_with_the_number_of_input_tokens_and_signs_the_reasoning(
    answered: Answered, registry: Registry
) -> None:
    await registry.set_base(replace(BASE, reasoning=ReasoningForm.THINK))
    text, thinking = "<think>hm</think>so", {"type": "enabled", "budget_tokens": 9}
    fields = {"thinking": thinking, "model": BASE.name}
    reply, _ = await answered(text, stream=True, **fields)
    start, *events = [event.json for event in sse_events(reply.text)]
    assert start["message"]["usage"]["input_tokens"] == 3
    assert start["message"]["usage"]["output_tokens"] == 0
    deltas = [each["delta"] for each in events if each["type"] == "content_block_delta"]
    (signature,) = [delta["signature"] for delta in deltas if delta["type"] == "signature_delta"]
    whole, _ = await answered(text, **fields)
    assert whole.json()["content"][0] == {
        "type": "thinking",
        "thinking": "hm",
        "signature": signature,
    }


async def test_calls_of_anthropics_servers_in_the_history_are_left_out(answered: Answered) -> None:
    said_before = [
        {"type": "text", "text": "I search."},
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []},
        {"type": "text", "text": " Sunny."},
    ]
    messages = [
        *BODY["messages"],
        {"role": "assistant", "content": said_before},
        {"role": "user", "content": "And?"},
    ]
    reply, job = await answered(messages=messages)
    assert [m["content"] for m in job.job.messages or ()] == ["hi", "I search. Sunny.", "And?"]
    left_out = "not used: messages[1].content[1], messages[1].content[2]"
    assert reply.headers["x-lorikeet-warning"] == left_out


def said(role: str, content: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content}]}


BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "max_tokens"),
    ({"messages": []}, "messages"),
    ({"messages": [7]}, "messages[0].role"),
    (said("user", 7), "messages[0].content"),
    (said("user", [{"type": "document"}]), "messages[0].content[0].type"),
    (said("user", [{"type": "image"}]), "messages[0].content[0].source"),
    (said("assistant", [{"type": "image"}]), "messages[0].content[0].type"),
    (said("assistant", [{"type": "tool_use", "input": 7}]), "messages[0].content[0].input"),
    ({"system": 7}, "system"),
    ({"system": 0}, "system"),
    ({"tools": [{"type": "web_search_20250305", "name": "x"}]}, "tools[0].type"),
    ({"tools": [{"name": "x", "input_schema": {"type": "array"}}]}, "tools[0].input_schema"),
    ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
    ({"stop_sequences": [""]}, "stop_sequences"),
    ({"mcp_servers": [{}]}, "mcp_servers"),
    ({"thinking": {"type": "x"}}, "thinking.type"),
]


async def test_a_bad_field_or_an_unknown_model_is_named_in_anthropics_format(
    http: httpx.AsyncClient,
) -> None:
    for change, param in BAD_FIELDS:
        reply = await http.post(URL, json={**BODY, **change})
        body = reply.json()
        assert reply.status_code == 400
        assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
        assert body["error"]["param"] == param
        assert body["error"]["message"]
    reply = await http.post(URL, json={**BODY, "model": "none"})
    assert (reply.status_code, reply.json()["error"]["type"]) == (404, "not_found_error")


@with_settings(api_keys=(SecretStr(KEY),))
async def test_the_key_is_accepted_in_anthropics_header(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    wrong = await http.post(URL, json=BODY, headers={"x-api-key": "wrong"})
    assert (wrong.status_code, wrong.json()["error"]["type"]) == (401, "authentication_error")
    headers = {"x-api-key": KEY.partition(":")[2]}
    reply, _ = await worker.serve(http.post(URL, json=BODY, headers=headers))
    assert reply.status_code == 200


async def test_tokens_of_a_prompt_are_counted(http: httpx.AsyncClient, counted: list[Any]) -> None:
    prompt = {"model": "extract", "messages": BODY["messages"], "system": "Be brief."}
    reply = await http.post(f"{URL}/count_tokens", json={**prompt, "tools": [WEATHER]})
    assert reply.json() == {"input_tokens": 7}
    (job,) = counted
    assert [message["content"] for message in job.messages] == ["Be brief.", "hi"]
    assert job.tools.names == {"weather"}


async def test_an_unknown_field_of_a_block_is_listed_or_refused(
    http: httpx.AsyncClient, answered: Answered
) -> None:
    block = {"type": "text", "text": "hi", "colour": "red"}
    fields = {**said("user", [block]), "tools": [{**WEATHER, "x": 1}]}
    reply, _ = await answered(**fields)
    listed = "not used: messages[0].content[0].colour, tools[0].x"
    assert reply.headers["x-lorikeet-warning"] == listed
    for url, body in (
        (URL, {**BODY, **fields}),
        (f"{URL}/count_tokens", {"model": "extract"} | fields),
    ):
        refused = await http.post(url, json=body, headers={"Prefer": "handling=strict"})
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "unknown_parameter"
        assert refused.json()["error"]["param"] == "messages[0].content[0].colour"


async def test_the_content_of_a_message_is_sent_back_strictly_and_without_a_warning(
    http: httpx.AsyncClient, worker: ScriptedWorker, answered: Answered
) -> None:
    first, _ = await answered(ANSWER, tools=[WEATHER])
    content = first.json()["content"]
    messages = [{"role": "assistant", "content": content}, {"role": "user", "content": "And?"}]
    body = {**BODY, "messages": messages, "tools": [WEATHER]}
    strict = {"Prefer": "handling=strict"}
    reply, _ = await worker.serve(http.post(URL, json=body, headers=strict))
    assert (reply.status_code, reply.headers.get("x-lorikeet-warning")) == (200, None)
