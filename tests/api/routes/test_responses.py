"""/v1/responses with OpenAI's client, while a test plays the worker."""

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest
from api_support import ScriptedWorker, error_of
from key_support import bearer
from openai.resources.responses import AsyncResponses
from pydantic import BaseModel, SecretStr
from raw_client import with_settings
from sse_events import EventReader, sse_events
from typed_events import folded
from weather_tool import ANSWER, OSAKA, OSLO

from api.responses.tools import joined_name
from api.schema.tools import MAX_NAME_CHARS
from shared.errors import ErrorCode, JobError
from shared.protocol.jobs import ClaimedJob, JobState
from shared.protocol.results import Choice, FinishReason

URL = "/v1/responses"
STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {}},
    "strict": False,
}
BODY = {"model": "extract", "input": "hi"}
RED, BLUE = ("red:" + "r" * 20, "blue:" + "b" * 20)
PREVIOUS = "previous_response_id"


@dataclass
class Responses:
    """OpenAI's client of responses, and the worker that answers it."""

    client: AsyncResponses
    worker: ScriptedWorker

    async def answer(self, text: str = "hello", finish: FinishReason = STOP) -> ClaimedJob:
        """Answer the next job with `text`, one event for each three characters."""
        job = await self.worker.take()
        await self.worker.admit(job)
        for start in range(0, len(text), 3):
            is_last = start + 3 >= len(text)
            part, end = text[start : start + 3], finish if is_last else None
            await self.worker.tokens(job, start // 3, (start,), part, end, checkpoint=True)
        ids = tuple(range(0, len(text), 3))
        await self.worker.finish(job, Choice(text=text, finish=finish, ids=ids))
        return job

    async def create(self, **fields: Any) -> Any:
        return await self.client.create(**{"model": "extract", "input": "hi", **fields})

    async def answered(
        self, text: str = "hello", finish: FinishReason = STOP, **fields: Any
    ) -> tuple[Any, ClaimedJob]:
        """Send a request, answer its job, and return the response and the job."""
        creating = asyncio.create_task(self.create(**fields))
        job = await self.answer(text, finish)
        return await creating, job


@pytest.fixture
def responses(client: openai.AsyncOpenAI, worker: ScriptedWorker) -> Responses:
    return Responses(client.responses, worker)


async def test_text(responses: Responses) -> None:
    response, job = await responses.answered(
        instructions="Be brief.",
        metadata={"a": "b"},
        max_output_tokens=9,
        temperature=0.5,
        top_logprobs=2,
        include=["message.output_text.logprobs"],
    )
    assert (response.output_text, response.status) == ("hello", "completed")
    assert response.id == f"resp_{job.job.id}"
    assert (response.metadata, response.instructions) == ({"a": "b"}, "Be brief.")
    assert (response.usage.input_tokens, response.usage.output_tokens) == (3, 2)
    sampling = job.job.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.logprobs) == (9, 0.5, 2)
    assert response.output[0].content[0].logprobs == []  # the scripted worker publishes none
    assert [message["role"] for message in job.job.messages or ()] == ["system", "user"]


async def test_items_become_messages(responses: Responses) -> None:
    items = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "weather?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}],
        },
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": OSAKA},
        {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": OSLO},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [{"type": "input_text", "text": "rain"}],
        },
    ]
    _, job = await responses.answered(input=items, tools=[WEATHER])
    system, user, assistant, first, second = job.job.messages or ()
    assert (system["role"], user["content"]) == ("system", "weather?")
    assert assistant["content"] == "Let me see."
    assert [call["id"] for call in assistant["tool_calls"]] == ["c1", "c2"]
    assert [(m["tool_call_id"], m["content"]) for m in (first, second)] == [
        ("c1", "sunny"),
        ("c2", "rain"),
    ]


async def test_an_output_that_is_too_long_is_incomplete(responses: Responses) -> None:
    response, _ = await responses.answered(finish=LENGTH, max_output_tokens=2)
    assert (response.status, response.incomplete_details.reason) == (
        "incomplete",
        "max_output_tokens",
    )
    assert response.output[0].status == "incomplete"


@pytest.mark.parametrize("text", [ANSWER, "hello", "", "<tool_call>\n{oops\n</tool_call>"])
async def test_a_stream_has_what_the_whole_response_has(responses: Responses, text: str) -> None:
    whole, _ = await responses.answered(text, tools=[WEATHER])
    taking = asyncio.create_task(responses.answer(text))
    deltas: dict[int, str] = {}
    types = []
    async with responses.client.stream(model="extract", input="hi", tools=[WEATHER]) as stream:
        async for event in stream:
            types.append(event.type)
            if event.type in (
                "response.output_text.delta",
                "response.function_call_arguments.delta",
            ):
                deltas[event.output_index] = deltas.get(event.output_index, "") + event.delta
        final = await stream.get_final_response()
    await taking
    assert types[:2] == ["response.created", "response.in_progress"]
    assert types[-1] == "response.completed"
    assert final.output_text == whole.output_text
    assert [item.type for item in final.output] == [item.type for item in whole.output]
    texts = [
        item.content[0].text if item.type == "message" else item.arguments for item in whole.output
    ]
    assert [deltas.get(index, "") for index in range(len(texts))] == texts


async def test_tool_calls(responses: Responses) -> None:
    response, job = await responses.answered(
        ANSWER,
        tools=[WEATHER],
        tool_choice={"type": "function", "name": "weather"},
        parallel_tool_calls=True,
    )
    message, *calls = response.output
    assert message.content[0].text == "Let me see."
    assert [(call.name, call.arguments) for call in calls] == [
        ("weather", OSAKA),
        ("weather", OSLO),
    ]
    assert job.job.tools is not None
    assert job.job.tools.name == "weather"
    assert response.tools[0].name == "weather"


async def test_the_functions_of_a_namespace_are_called_by_both_names(
    responses: Responses,
) -> None:
    function = {"type": "function", "name": "look", "parameters": {"type": "object"}}
    crm = {"type": "namespace", "name": "crm", "description": "Customers.", "tools": [function]}
    text = '<tool_call>\n{"name": "crm__look", "arguments": {"id": 1}}\n</tool_call>'
    response, job = await responses.answered(text, tools=[crm, WEATHER])
    assert job.job.tools is not None
    assert job.job.tools.names == {"crm__look", "weather"}
    (call,) = response.output
    assert (call.namespace, call.name, call.arguments) == ("crm", "look", '{"id": 1}')
    assert response.tools[0].model_dump(exclude_unset=True)["tools"][0]["name"] == "look"
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "Ann"}
    sent = [{"role": "user", "content": "who?"}, call.model_dump(exclude_unset=True), output]
    _, again = await responses.answered(tools=[crm], input=sent)
    _, called, _ = again.job.messages or ()
    assert called["tool_calls"][0]["function"]["name"] == "crm__look"


def test_the_name_of_a_function_in_a_namespace_is_never_too_long() -> None:
    long = joined_name("mcp__" + "x" * 50, "y" * 30)
    assert len(long) == MAX_NAME_CHARS
    assert long != joined_name("mcp__" + "x" * 50, "y" * 31)
    assert joined_name("mcp__crm__", "look") == "mcp__crm__look"


class City(BaseModel):
    """A city."""

    name: str


async def test_a_schema_is_parsed(responses: Responses) -> None:
    parsing = asyncio.create_task(
        responses.client.parse(model="extract", input="hi", text_format=City)
    )
    job = await responses.answer('{"name":"Oslo"}')
    assert (await parsing).output_parsed == City(name="Oslo")
    assert '"name"' in (job.job.sampling.json_schema or "")


async def test_a_background_response_is_retrieved_and_continues_only_once_it_is_completed(
    responses: Responses,
) -> None:
    accepted = await responses.create(background=True)
    assert accepted.status == "queued"
    job = await responses.worker.take()
    assert (await responses.client.retrieve(accepted.id)).status == "in_progress"
    with pytest.raises(openai.BadRequestError, match="isn't completed"):
        await responses.create(previous_response_id=accepted.id)
    await responses.worker.answer(job)
    done = await responses.client.retrieve(accepted.id)
    assert (done.status, done.output_text) == ("completed", "hello")


async def test_waiting_and_running_background_responses_are_cancelled(responses: Responses) -> None:
    running = await responses.create(background=True)
    await responses.worker.take()
    waiting = await responses.create(background=True)
    for accepted in (running, waiting):
        assert (await responses.client.cancel(accepted.id)).status == "cancelled"
    assert (await responses.client.retrieve(waiting.id)).status == "cancelled"
    response, _ = await responses.answered()
    with pytest.raises(openai.BadRequestError, match="background"):
        await responses.client.cancel(response.id)


@pytest.mark.parametrize(("store", "reason"), [(True, PREVIOUS), (False, "isn't stored")])
async def test_a_response_that_was_deleted_or_not_stored_is_gone(
    responses: Responses, store: bool, reason: str
) -> None:
    response, _ = await responses.answered(store=store)
    assert response.output_text == "hello"
    if store:
        await responses.client.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        await responses.client.retrieve(response.id)
    with pytest.raises(openai.BadRequestError, match=reason):
        await responses.create(previous_response_id=response.id)


async def test_a_running_response_is_deleted_by_a_second_request(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    accepted = (await http.post(URL, json={**BODY, "background": True})).json()
    job = await worker.take()
    url = f"{URL}/{accepted['id']}"
    assert (await http.delete(url)).json()["deleted"] is False
    cancelled = JobError(code=ErrorCode.CANCELLED, message="cancelled")
    await worker.fail(job, cancelled, JobState.CANCELLED)
    assert (await http.delete(url)).json() == {
        "id": accepted["id"],
        "object": "response",
        "deleted": True,
    }


async def test_a_conversation_continues(responses: Responses) -> None:
    first, _ = await responses.answered(ANSWER, tools=[WEATHER], instructions="Be brief.")
    outputs: Any = [
        {"type": "function_call_output", "call_id": item.call_id, "output": "sunny"}
        for item in first.output
        if item.type == "function_call"
    ]
    second, job = await responses.answered("Sunny.", input=outputs, previous_response_id=first.id)
    roles = [message["role"] for message in job.job.messages or ()]
    assert roles == ["user", "assistant", "tool", "tool"]  # without the earlier instructions
    assert second.previous_response_id == first.id
    third, job = await responses.answered(input="And Rome?", previous_response_id=second.id)
    contents = [message["content"] for message in job.job.messages or ()]
    assert contents == ["hi", "Let me see.", "sunny", "sunny", "Sunny.", "And Rome?"]
    items = await responses.client.input_items.list(third.id, order="asc", limit=2)
    assert [item.type for item in items.data] == ["message", "message"]
    assert items.has_more
    after = items.data[1].id or ""
    rest = await responses.client.input_items.list(third.id, order="asc", after=after)
    assert rest.data[0].type == "function_call"
    assert len([item async for item in responses.client.input_items.list(third.id)]) == 8


@with_settings(max_body_bytes=400)
async def test_a_conversation_that_is_too_large_is_refused(responses: Responses) -> None:
    first, _ = await responses.answered("x" * 300)
    with pytest.raises(openai.APIStatusError, match="max-body-bytes"):
        await responses.create(previous_response_id=first.id)


@with_settings(api_keys=(SecretStr(RED), SecretStr(BLUE)))
async def test_the_response_of_another_tenant_does_not_exist(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    red, blue = (bearer(key.partition(":")[2]) for key in (RED, BLUE))
    reply, _ = await worker.serve(http.post(URL, json=BODY, headers=red))
    response_id = reply.json()["id"]
    url = f"{URL}/{response_id}"
    assert (await http.get(url, headers=red)).status_code == 200
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
        reply = await http.request(method, url + path, headers=blue)
        assert error_of(reply) == (404, "job_not_found", None)
    continued = {**BODY, "previous_response_id": response_id}
    reply = await http.post(URL, json=continued, headers=blue)
    assert error_of(reply) == (400, "previous_response_not_found", "previous_response_id")


async def test_a_chat_completion_is_not_a_response(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    chat = {"model": "extract", "messages": [{"role": "user", "content": "hi"}]}
    _, job = await worker.serve(http.post("/v1/chat/completions", json=chat))
    assert (await http.get(f"{URL}/resp_{job.job.id}")).status_code == 404


async def test_after_any_event_exactly_the_rest_follows_on_another_front_end(
    http: httpx.AsyncClient, other: httpx.AsyncClient, responses: Responses
) -> None:
    posting = asyncio.create_task(http.post(URL, json={**BODY, "tools": [WEATHER], "stream": True}))
    job = await responses.answer(ANSWER)
    whole = sse_events((await posting).text)
    for count, event in enumerate(whole, 1):
        rest = await other.get(f"/v1/jobs/{job.job.id}/stream", params={"after": event.id})
        assert folded([*whole[:count], *sse_events(rest.text)]) == folded(whole)
        number = event.json["sequence_number"]
        url = f"{URL}/resp_{job.job.id}"
        params = {"stream": "true", "starting_after": number}
        rest = await other.get(url, params=params)
        assert folded([*whole[:count], *sse_events(rest.text)]) == folded(whole)
    again = await other.get(f"{URL}/resp_{job.job.id}", params={"stream": "true"})
    assert folded(sse_events(again.text)) == folded(whole)
    stored = (await other.get(f"/v1/jobs/{job.job.id}")).json()
    assert stored["answer"] == whole[-1].json["response"]
    assert (await other.get(f"{URL}/resp_{job.job.id}")).json() == stored["answer"]


async def test_a_failed_stream_ends_with_the_error(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    beginning = asyncio.create_task(worker.begin("begun"))
    async with http.stream("POST", URL, json={**BODY, "stream": True}) as response:
        job, reader = await beginning, EventReader(response)
        await reader.until("begun")
        await worker.fail(job, JobError(code=ErrorCode.INTERNAL, message="broken"))
        await reader.rest()
    failed = reader.events[-1].json
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
    assert failed["response"]["error"] == {"code": "internal_error", "message": "broken"}
    stored = (await http.get(f"{URL}/resp_{job.job.id}")).json()
    assert (stored["status"], stored["error"]["message"]) == ("failed", "broken")


INVALID, UNSUPPORTED = "invalid_value", "unsupported_parameter"
IMAGE = {"role": "user", "content": [{"type": "input_image"}]}
FILE = {"role": "user", "content": [{"type": "input_file"}]}
BAD_FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({"input": []}, INVALID, "input"),
    ({"input": None}, INVALID, "input"),
    ({"input": [7]}, INVALID, "input[0]"),
    ({"input": [{"role": "x", "content": "a"}]}, INVALID, "input[0].role"),
    ({"input": [IMAGE]}, INVALID, "input[0].content[0].image_url"),
    ({"input": [FILE]}, UNSUPPORTED, "input[0].content[0].type"),
    ({"input": [{"type": "item_reference"}]}, UNSUPPORTED, "input[0].type"),
    ({"input": [{"type": "function_call"}]}, INVALID, "input[0].call_id"),
    ({"tools": [{"type": "web_search"}]}, UNSUPPORTED, "tools[0].type"),
    ({"tools": [{"type": "function", "name": "?"}]}, INVALID, "tools[0].name"),
    ({"tool_choice": {"type": "mcp"}}, UNSUPPORTED, "tool_choice"),
    ({"text": {"format": {"type": "json_schema"}}}, INVALID, "text.format.schema"),
    ({"conversation": "c"}, UNSUPPORTED, "conversation"),
    ({"prompt": {"id": "p"}}, UNSUPPORTED, "prompt"),
    ({"n": 2}, UNSUPPORTED, "n"),
    ({"truncation": "auto"}, INVALID, "truncation"),
    ({"background": True, "store": False}, INVALID, "store"),
    ({"previous_response_id": "x"}, "previous_response_not_found", "previous_response_id"),
    ({"max_output_tokens": 0}, INVALID, "max_output_tokens"),
    ({"metadata": {"a": 1}}, INVALID, "metadata.a"),
]


async def test_a_bad_field_is_named(http: httpx.AsyncClient) -> None:
    for change, code, param in BAD_FIELDS:
        reply = await http.post(URL, json={**BODY, **change})
        assert error_of(reply) == (400, code, param), change


async def test_a_bad_query_is_named(http: httpx.AsyncClient) -> None:
    for query, param in (
        ({"stream": "x"}, "stream"),
        ({"starting_after": "1"}, "starting_after"),
        ({"stream": "true", "starting_after": "-1"}, "starting_after"),
    ):
        reply = await http.get(f"{URL}/resp_0", params=query)
        assert error_of(reply) == (400, "invalid_value", param)


async def test_sampling_fields_of_a_chat_are_used_and_unknown_fields_are_listed_or_refused(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    item = {"role": "user", "content": [{"type": "input_text", "text": "hi", "colour": "red"}]}
    body = {**BODY, "seed": 7, "input": [item], "tools": [{**WEATHER, "shape": "round"}]}
    reply, job = await worker.serve(http.post(URL, json=body))
    assert job.job.sampling.seed == 7
    listed = "not used: input[0].content[0].colour, tools[0].shape"
    assert reply.headers["x-lorikeet-warning"] == listed
    reply = await http.post(URL, json=body, headers={"Prefer": "handling=strict"})
    assert error_of(reply) == (400, "unknown_parameter", "input[0].content[0].colour")


async def test_the_output_of_a_response_is_sent_back_strictly_and_without_a_warning(
    responses: Responses, http: httpx.AsyncClient
) -> None:
    first, _ = await responses.answered(ANSWER, tools=[WEATHER])
    items = await responses.client.input_items.list(first.id)
    said = [item.to_dict() for item in (*items.data, *first.output)]
    body = {**BODY, "input": said, "tools": [WEATHER]}
    strict = {"Prefer": "handling=strict"}
    reply, _ = await responses.worker.serve(http.post(URL, json=body, headers=strict))
    assert (reply.status_code, reply.headers.get("x-lorikeet-warning")) == (200, None)


async def test_the_tokens_of_an_input_and_of_a_continued_conversation_are_counted(
    responses: Responses, counted: list[Any]
) -> None:
    count = await responses.client.input_tokens.count(
        model="extract", input="hi", instructions="Be brief.", tools=[WEATHER]
    )
    assert (count.object, count.input_tokens) == ("response.input_tokens", 7)
    first, _ = await responses.answered()
    continued: Any = {"model": "extract", "previous_response_id": first.id}
    await responses.client.input_tokens.count(**continued, input="And Rome?")
    await responses.client.input_tokens.count(**continued)
    contents = [[message["content"] for message in chat.messages] for chat in counted]
    assert contents == [["Be brief.", "hi"], ["hi", "hello", "And Rome?"], ["hi", "hello"]]
    assert counted[0].tools.names == {"weather"}


async def test_a_bad_field_of_a_request_to_count_tokens_is_named(http: httpx.AsyncClient) -> None:
    cases: list[tuple[dict[str, Any], int, str, str]] = [
        ({"input": None}, 400, "invalid_value", "input"),
        ({"personality": "friendly"}, 400, "unsupported_parameter", "personality"),
        ({"tools": [{**WEATHER, "x": 1}]}, 400, "unknown_parameter", "tools[0].x"),
        ({"model": "none"}, 404, "model_not_found", "model"),
    ]
    strict = {"Prefer": "handling=strict"}
    for change, *error in cases:
        reply = await http.post(f"{URL}/input_tokens", json={**BODY, **change}, headers=strict)
        assert error_of(reply) == tuple(error)
