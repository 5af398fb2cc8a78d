"""Scenarios of openai's client with /v1/responses."""

import json
from typing import Any

import openai
from weather_chat import (
    ANSWER,
    BASE,
    CALLER,
    CITY,
    DESCRIPTION,
    GREETING,
    HELLO,
    PARAMETERS,
    QUESTION,
    SKY,
    TOOL,
)
from weather_move import Move

CLIENT = openai.OpenAI(max_retries=0)
TEXT: dict[str, Any] = {"model": CALLER, "input": HELLO}
TOOLS: list[Any] = [
    {
        "type": "function",
        "name": TOOL,
        "description": DESCRIPTION,
        "parameters": PARAMETERS,
        "strict": True,
    }
]
CALL: dict[str, Any] = {"model": CALLER, "tools": TOOLS}


def test_the_events_of_a_response_are_in_order() -> None:
    events = list(CLIENT.responses.create(**TEXT, stream=True))
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
    first = CLIENT.responses.create(**CALL, input=QUESTION)
    (call,) = first.output
    assert (call.type, call.name) == ("function_call", TOOL)
    assert json.loads(call.arguments) == {"city": CITY}
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": SKY}
    second = CLIENT.responses.create(**CALL, input=[result], previous_response_id=first.id)
    assert (second.output_text, second.status) == (ANSWER, "completed")
    assert second.previous_response_id == first.id
    asked = {"role": "user", "content": QUESTION}
    explicit = CLIENT.responses.create(**CALL, input=[asked, call, result])
    assert explicit.output_text == ANSWER
    assert explicit.usage.input_tokens == second.usage.input_tokens


def test_tokens_are_counted_as_a_response_uses_them() -> None:
    first = CLIENT.responses.create(**TEXT, instructions="Be brief.")
    count = CLIENT.responses.input_tokens.count
    assert count(**TEXT, instructions="Be brief.").input_tokens == first.usage.input_tokens
    second: Any = {**CALL, "input": QUESTION, "previous_response_id": first.id}
    used = CLIENT.responses.create(**second).usage.input_tokens
    assert count(**second).input_tokens == used > first.usage.input_tokens


def test_a_parsed_response_follows_its_schema_for_any_model() -> None:
    body = TEXT | {"model": BASE, "max_output_tokens": 200}
    assert isinstance(CLIENT.responses.parse(**body, text_format=Move).output_parsed, Move)
    with CLIENT.responses.stream(**body, text_format=Move) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Move)


def test_a_response_in_the_background_is_streamed_from_any_event() -> None:
    events = list(CLIENT.responses.create(**TEXT, background=True, stream=True))
    done = events[-1].response
    assert done.output_text == GREETING
    seen = events[5].sequence_number
    rest = list(CLIENT.responses.retrieve(done.id, stream=True, starting_after=seen))
    text = [e.delta for e in [*events[:6], *rest] if e.type == "response.output_text.delta"]
    assert "".join(text) == GREETING
    assert rest[-1].response.output_text == GREETING
