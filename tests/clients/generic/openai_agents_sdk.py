"""OpenAI's Agents SDK with a model whose template shows no tools."""

import json
import os
from typing import Any

import agents
import pytest
from openai import AsyncOpenAI

agents.set_tracing_disabled(True)
BASE = os.environ["BASE"]
MODELS = (agents.OpenAIResponsesModel, agents.OpenAIChatCompletionsModel)


@agents.function_tool
def weather(city: str, days: int) -> str:
    """Return the weather in a city."""
    return "sunny"


@pytest.mark.parametrize("choice", ["required", "auto"])
@pytest.mark.parametrize("model", MODELS)
def test_an_agent_gets_a_call_or_text(model: Any, choice: str) -> None:
    settings = agents.ModelSettings(tool_choice=choice, temperature=0, max_tokens=200)
    agent = agents.Agent(
        name="agent",
        model=model(BASE, AsyncOpenAI(max_retries=0)),
        tools=[weather],
        model_settings=settings,
        tool_use_behavior="stop_on_first_tool",
    )
    done = agents.Runner.run_sync(agent, "What is the weather in Osaka in the next 3 days?")
    calls = [i.raw_item for i in done.new_items if isinstance(i, agents.ToolCallItem)]
    assert calls or (choice == "auto" and done.final_output)
    for call in calls:
        assert call.name == "weather"
        assert {name: type(value) for name, value in json.loads(call.arguments).items()} == {
            "city": str,
            "days": int,
        }
