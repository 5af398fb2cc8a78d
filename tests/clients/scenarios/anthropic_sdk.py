"""Scenarios of anthropic's SDK."""

from typing import Any

import anthropic
import pytest
from weather_chat import (
    ANSWER,
    BASE,
    CALLER,
    CITY,
    DESCRIPTION,
    GREETING,
    HELLO,
    MODELS,
    PARAMETERS,
    QUESTION,
    SKY,
    TOOL,
)
from weather_move import Move

CLIENT = anthropic.Anthropic(max_retries=0)
GREETED: dict[str, Any] = {"role": "user", "content": HELLO}
ASKED: dict[str, Any] = {"role": "user", "content": QUESTION}
TOOLS: list[Any] = [{"name": TOOL, "description": DESCRIPTION, "input_schema": PARAMETERS}]
TEXT: dict[str, Any] = {"model": CALLER, "max_tokens": 100, "messages": [GREETED]}
CALL: dict[str, Any] = {"model": CALLER, "max_tokens": 100, "tools": TOOLS}


def test_a_streamed_message_is_the_whole_message() -> None:
    whole = CLIENT.messages.create(**TEXT)
    with CLIENT.messages.stream(**TEXT) as stream:
        text = "".join(stream.text_stream)
        streamed = stream.get_final_message()
    assert text == whole.content[0].text == streamed.content[0].text == GREETING
    assert streamed.stop_reason == whole.stop_reason == "end_turn"
    assert streamed.usage == whole.usage
    assert (streamed.model, streamed.role, streamed.type) == (CALLER, "assistant", "message")


def test_tokens_are_counted_as_a_message_uses_them() -> None:
    prompt = {"model": BASE, "messages": [ASKED], "system": "Be brief.", "tools": TOOLS}
    count = CLIENT.messages.count_tokens(**prompt)
    usage = CLIENT.messages.create(**prompt, max_tokens=1).usage
    assert count.input_tokens == usage.input_tokens + usage.cache_read_input_tokens
    without_tools = CLIENT.messages.count_tokens(model=BASE, messages=[ASKED])
    assert without_tools.input_tokens < count.input_tokens


def test_a_called_tool_gets_its_result_sent_back() -> None:
    called = CLIENT.messages.create(**CALL, messages=[ASKED])
    assert called.stop_reason == "tool_use"
    (block,) = called.content
    assert (block.type, block.name, block.input) == ("tool_use", TOOL, {"city": CITY})
    result: Any = {"type": "tool_result", "tool_use_id": block.id, "content": SKY}
    said: list[Any] = [ASKED, {"role": "assistant", "content": called.content}]
    answer = CLIENT.messages.create(**CALL, messages=[*said, {"role": "user", "content": [result]}])
    assert (answer.stop_reason, answer.content[0].text) == ("end_turn", ANSWER)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_the_tool_runner_executes_the_tool(is_streamed: bool) -> None:
    cities = []

    @anthropic.beta_tool(name=TOOL, description=DESCRIPTION)
    def weather(city: str) -> str:
        """Return the weather.

        Args:
            city: The city.
        """
        cities.append(city)
        return SKY

    asked = {"model": CALLER, "max_tokens": 100, "messages": [ASKED]}
    runner = CLIENT.beta.messages.tool_runner(**asked, tools=[weather], stream=is_streamed)
    assert runner.until_done().content[0].text == ANSWER
    assert cities == [CITY]


def test_a_required_call_follows_its_schema_for_any_model() -> None:
    schema = {**Move.model_json_schema(), "additionalProperties": False}
    called = CLIENT.messages.create(
        **TEXT | {"model": BASE, "max_tokens": 200},
        tools=[{"name": "move", "input_schema": schema}],
        tool_choice={"type": "tool", "name": "move"},
    )
    (block,) = called.content
    assert block.name == "move"
    Move.model_validate(block.input)


def test_a_parsed_message_follows_its_schema_for_any_model() -> None:
    parsed = CLIENT.messages.parse(**TEXT | {"model": BASE, "max_tokens": 200}, output_format=Move)
    assert isinstance(parsed.parsed_output, Move)


def test_errors_have_the_types_of_the_sdk() -> None:
    with pytest.raises(anthropic.NotFoundError, match="absent"):
        CLIENT.messages.create(**TEXT | {"model": "absent"})
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        CLIENT.messages.create(**TEXT | {"max_tokens": 0})
    with pytest.raises(anthropic.AuthenticationError):
        anthropic.Anthropic(api_key="another key", max_retries=0).messages.create(**TEXT)


def test_the_models_are_listed() -> None:
    assert {model.id for model in CLIENT.models.list()} == set(MODELS)
    assert CLIENT.models.retrieve(CALLER).id == CALLER
