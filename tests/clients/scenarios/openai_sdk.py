"""Scenarios of openai's client with chats and with /v1/responses."""

import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel
from weather_chat import ANSWER, BASE, CALLER, CHAT_TOOL, CITY, GREETING, HELLO, QUESTION, SKY, TOOL
from weather_move import Move

CLIENT = openai.OpenAI(max_retries=0)
ASKED: dict[str, Any] = {"role": "user", "content": QUESTION}
CALL: dict[str, Any] = {"model": CALLER, "temperature": 0, "tools": [CHAT_TOOL]}


class Weather(BaseModel):
    city: str


def test_a_streamed_chat_is_the_whole_chat() -> None:
    body: Any = {"model": CALLER, "messages": [{"role": "user", "content": HELLO}]}
    whole = CLIENT.chat.completions.create(**body, logprobs=True)
    usage = {"stream_options": {"include_usage": True}}
    with CLIENT.chat.completions.stream(**body, **usage, logprobs=True) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        streamed = stream.get_final_completion()
    assert text == whole.choices[0].message.content == GREETING
    assert streamed.choices[0].message.content == GREETING
    assert streamed.choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    tokens = [token.token for token in whole.choices[0].logprobs.content]
    assert [token.token for token in streamed.choices[0].logprobs.content] == tokens
    assert streamed.usage.total_tokens == whole.usage.total_tokens


def test_a_parsed_chat_follows_its_schema_for_any_model() -> None:
    body: Any = {"model": BASE, "max_tokens": 200, "messages": [ASKED]}
    parsed = CLIENT.chat.completions.parse(**body, response_format=Move)
    assert isinstance(parsed.choices[0].message.parsed, Move)
    with CLIENT.chat.completions.stream(**body, response_format=Move) as stream:
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Move)


def test_a_parsed_call_and_its_result_are_sent_back() -> None:
    tools = [openai.pydantic_function_tool(Weather, name=TOOL)]
    body = {**CALL, "tools": tools}
    message = CLIENT.chat.completions.parse(**body, messages=[ASKED]).choices[0].message
    (call,) = message.tool_calls
    assert call.function.parsed_arguments == Weather(city=CITY)
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": SKY}
    answer = CLIENT.chat.completions.parse(**body, messages=[ASKED, message, result])
    assert answer.choices[0].message.content == ANSWER


def test_errors_have_the_types_of_the_client() -> None:
    with pytest.raises(openai.NotFoundError, match="absent"):
        CLIENT.chat.completions.create(model="absent", messages=[ASKED])
    with pytest.raises(openai.BadRequestError, match="temperature") as refused:
        CLIENT.chat.completions.create(model=BASE, messages=[ASKED], temperature=-1)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(api_key="another key", max_retries=0).models.list()


GREETED: dict[str, Any] = {"model": CALLER, "input": HELLO}
TOOLS: list[Any] = [{"type": "function", **CHAT_TOOL["function"], "strict": True}]
ASKING: dict[str, Any] = {"model": CALLER, "tools": TOOLS}


def test_the_events_of_a_response_are_in_order() -> None:
    events = list(CLIENT.responses.create(**GREETED, stream=True))
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers))
    delta = "response.output_text.delta"
    assert [event.type for event in events if event.type != delta] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


def test_a_response_continues_the_previous_one() -> None:
    first = CLIENT.responses.create(**ASKING, input=QUESTION)
    (call,) = first.output
    assert (call.type, call.name) == ("function_call", TOOL)
    assert json.loads(call.arguments) == {"city": CITY}
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": SKY}
    second = CLIENT.responses.create(**ASKING, input=[result], previous_response_id=first.id)
    assert (second.output_text, second.status) == (ANSWER, "completed")
    assert second.previous_response_id == first.id
    asked = {"role": "user", "content": QUESTION}
    explicit = CLIENT.responses.create(**ASKING, input=[asked, call, result])
    assert explicit.output_text == ANSWER
    assert explicit.usage.input_tokens == second.usage.input_tokens


def test_tokens_are_counted_as_a_response_uses_them() -> None:
    first = CLIENT.responses.create(**GREETED, instructions="Be brief.")
    count = CLIENT.responses.input_tokens.count
    assert count(**GREETED, instructions="Be brief.").input_tokens == first.usage.input_tokens
    second: Any = {**ASKING, "input": QUESTION, "previous_response_id": first.id}
    used = CLIENT.responses.create(**second).usage.input_tokens
    assert count(**second).input_tokens == used > first.usage.input_tokens


def test_a_parsed_response_follows_its_schema_for_any_model() -> None:
    body = GREETED | {"model": BASE, "max_output_tokens": 200}
    assert isinstance(CLIENT.responses.parse(**body, text_format=Move).output_parsed, Move)
    with CLIENT.responses.stream(**body, text_format=Move) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Move)


def test_a_response_in_the_background_is_streamed_from_any_event() -> None:
    events = list(CLIENT.responses.create(**GREETED, background=True, stream=True))
    done = events[-1].response
    assert done.output_text == GREETING
    seen = events[5].sequence_number
    rest = list(CLIENT.responses.retrieve(done.id, stream=True, starting_after=seen))
    text = [e.delta for e in [*events[:6], *rest] if e.type == "response.output_text.delta"]
    assert "".join(text) == GREETING
    assert rest[-1].response.output_text == GREETING
