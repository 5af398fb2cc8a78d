"""smolagents with a model whose template shows no tools."""

import json
import os

import pytest
from smolagents import ChatMessage, MessageRole, OpenAIModel, tool

BASE = os.environ["BASE"]


@tool
def weather(city: str, days: int) -> str:
    """Return the weather in a city.

    Args:
        city: The city.
        days: Number of days.
    """
    return "sunny"


@pytest.mark.parametrize("choice", ["required", "auto"])
def test_a_model_gets_a_call_or_text(choice: str) -> None:
    model = OpenAIModel(BASE, temperature=0, max_tokens=200, tool_choice=choice)
    question = ChatMessage(
        role=MessageRole.USER,
        content=[{"type": "text", "text": "What is the weather in Osaka in the next 3 days?"}],
    )
    answer = model.generate([question], tools_to_call_from=[weather])
    calls = answer.tool_calls or []
    assert calls or (choice == "auto" and answer.content)
    for call in calls:
        assert call.function.name == "weather"
        arguments = call.function.arguments
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
        assert {key: type(value) for key, value in arguments.items()} == {"city": str, "days": int}
