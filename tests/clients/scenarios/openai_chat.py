"""Scenarios of openai's client with chats, text completions, embeddings and models."""

from typing import Any

import openai
import pytest
from pydantic import BaseModel
from weather_chat import ANSWER, BASE, CALLER, CHAT_TOOL, CITY, GREETING, HELLO, QUESTION, SKY, TOOL
from weather_move import Move

CLIENT = openai.OpenAI(max_retries=0)
ASKED: dict[str, Any] = {"role": "user", "content": QUESTION}
TEXT: dict[str, Any] = {"model": BASE, "temperature": 0, "max_tokens": 30}
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
    body = {**TEXT, "temperature": 1, "max_tokens": 200, "messages": [ASKED]}
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
