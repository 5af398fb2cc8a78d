"""Scenarios of smolagents' models and agents."""

import json
import os
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict
from smolagents import ChatMessage, MessageRole, OpenAIModel, ToolCallingAgent, tool
from weather_chat import AGENT, ANSWER, BASE, CALLER, CITY, GREETING, HELLO, QUESTION, SKY, TOOL

SERVER = {"api_base": os.environ["OPENAI_BASE_URL"], "api_key": os.environ["OPENAI_API_KEY"]}


class Move(BaseModel):
    model_config = ConfigDict(extra="forbid")  # any model would fill its answer with other keys

    where: Literal["left", "right"]
    far: bool


@tool
def weather(city: str) -> str:
    """Return the weather in a city.

    Args:
        city: The city.
    """
    return SKY


def user(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=[{"type": "text", "text": text}])


def test_a_streamed_answer_is_the_whole_answer() -> None:
    model = OpenAIModel(CALLER, **SERVER)
    assert model.generate([user(HELLO)]).content == GREETING
    deltas = list(model.generate_stream([user(HELLO)]))
    assert "".join(delta.content or "" for delta in deltas) == GREETING
    assert deltas[-1].token_usage.output_tokens > len(GREETING) - 1


def test_the_model_calls_the_tool() -> None:
    message = OpenAIModel(CALLER, **SERVER).generate(
        [user(QUESTION)], tools_to_call_from=[weather], stop_sequences=["Observation:"]
    )
    (call,) = message.tool_calls
    assert call.function.name == TOOL
    arguments = call.function.arguments
    assert (json.loads(arguments) if isinstance(arguments, str) else arguments) == {"city": CITY}
    assert weather(city=CITY) == SKY


def test_the_answer_follows_its_schema_for_any_model() -> None:
    named = {"name": "move", "schema": Move.model_json_schema()}
    schema: Any = {"type": "json_schema", "json_schema": named}
    answer = OpenAIModel(BASE, **SERVER).generate(
        [user(HELLO)], response_format=schema, max_tokens=200
    )
    Move.model_validate_json(str(answer.content))


@pytest.mark.parametrize("is_streamed", [False, True])
def test_an_agent_executes_the_tool_and_answers(is_streamed: bool) -> None:
    model = OpenAIModel(AGENT, **SERVER)
    agent = ToolCallingAgent([weather], model, stream_outputs=is_streamed, max_steps=2)
    assert agent.run(QUESTION) == ANSWER
    called, answered = (step.tool_calls[0] for step in agent.memory.steps[1:])
    assert (called.name, called.arguments) == (TOOL, {"city": CITY})
    assert answered.name == "final_answer"
