"""LangChain's chat models with a model whose template shows no tools."""

import os
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

BASE = os.environ["BASE"]
OPTIONS: dict[str, Any] = {"model": BASE, "temperature": 0, "max_tokens": 200, "max_retries": 0}
REQUIRED = {ChatOpenAI: "required", ChatAnthropic: "any"}


@tool
def weather(city: str, days: int) -> str:
    """Return the weather in a city."""
    return "sunny"


@pytest.mark.parametrize("is_required", [True, False])
@pytest.mark.parametrize("kind", REQUIRED)
def test_a_chat_model_gets_a_call_or_text(kind: Any, is_required: bool) -> None:
    choice = REQUIRED[kind] if is_required else "auto"
    chat = kind(**OPTIONS).bind_tools([weather], tool_choice=choice)
    answer = chat.invoke("What is the weather in Osaka in the next 3 days?")
    assert answer.tool_calls or (not is_required and answer.text)
    assert answer.invalid_tool_calls == []
    for call in answer.tool_calls:
        assert call["name"] == "weather"
        assert {key: type(value) for key, value in call["args"].items()} == {
            "city": str,
            "days": int,
        }
