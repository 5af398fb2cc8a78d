"""Scenarios of LangChain's classes for Ollama."""

import os
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM
from pydantic import BaseModel
from weather_chat import ANSWER, BASE, CALLER, CITY, GREETING, HELLO, QUESTION, SKY, TOOL

HEADERS = {"headers": {"Authorization": f"Bearer {os.environ['OLLAMA_API_KEY']}"}}
SETTINGS: dict[str, Any] = {"base_url": os.environ["OLLAMA_HOST"], "client_kwargs": HEADERS}


@tool(TOOL)
def weather(city: str) -> str:
    """Return the weather in a city."""
    return SKY if city == CITY else "unknown"


class Turn(BaseModel):
    """A turn to the left or to the right."""

    is_left: bool


def chat_model(model: str = CALLER, **settings: Any) -> ChatOllama:
    return ChatOllama(model=model, validate_model_on_init=True, **SETTINGS, **settings)


def test_a_streamed_chat_is_the_whole_chat() -> None:
    whole = chat_model().invoke(HELLO)
    assert whole.text == GREETING
    assert whole.response_metadata["done_reason"] == "stop"
    streamed = [chunk.text for chunk in chat_model().stream(HELLO)]
    assert "".join(streamed) == GREETING
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] > 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_called_tool_gets_its_result_sent_back(stream: bool) -> None:
    bound, asked = chat_model().bind_tools([weather]), HumanMessage(QUESTION)
    if stream:
        first, *rest = bound.stream([asked])
        called = sum(rest, start=first)
        assert isinstance(called, AIMessageChunk)
    else:
        called = bound.invoke([asked])
    (call,) = called.tool_calls
    assert (call["name"], call["args"]) == (TOOL, {"city": CITY})
    result = ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"], name=TOOL)
    assert bound.invoke([asked, called, result]).text == ANSWER


def test_an_answer_follows_a_schema() -> None:
    model = chat_model(BASE, temperature=1, seed=3).with_structured_output(Turn)
    assert isinstance(model.invoke(HELLO), Turn)


def test_a_text_is_completed() -> None:
    assert OllamaLLM(model=CALLER, **SETTINGS).invoke(HELLO) == GREETING


def test_embeddings() -> None:
    embeddings = OllamaEmbeddings(model=BASE, **SETTINGS)
    assert len(embeddings.embed_documents(["a", "b"])) == 2


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(ValueError, match="not found in Ollama"):
        chat_model("nothing")
