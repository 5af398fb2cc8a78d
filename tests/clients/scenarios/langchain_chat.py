"""Scenarios of LangChain's chat models and embeddings."""

import asyncio
import operator
from functools import reduce
from typing import Any, Literal

import openai
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, ConfigDict
from weather_chat import ANSWER, BASE, CALLER, CITY, GREETING, HELLO, QUESTION, SKY, TOOL

MODEL = ChatOpenAI(model=CALLER, temperature=0, max_retries=0)
ASKED = HumanMessage(QUESTION)


class Move(BaseModel):
    model_config = ConfigDict(extra="forbid")  # any model would fill its answer with other keys

    where: Literal["left", "right"]
    far: bool


class Turn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    is_left: bool


@tool
def weather(city: str) -> str:
    """Return the weather in a city."""
    assert city == CITY
    return SKY


def test_a_streamed_message_is_the_whole_message() -> None:
    whole = MODEL.invoke(HELLO)
    chunks = list(MODEL.stream(HELLO, stream_usage=True))
    streamed = reduce(operator.add, chunks)
    assert len([chunk for chunk in chunks if chunk.text]) > 1
    assert streamed.text == whole.text == GREETING
    assert streamed.usage_metadata == whole.usage_metadata
    assert whole.usage_metadata is not None
    reason = whole.response_metadata["finish_reason"]
    assert streamed.response_metadata["finish_reason"] == reason == "stop"


def test_messages_are_generated_asynchronously_and_in_batches() -> None:
    async def generated() -> tuple[Any, list[Any], list[str]]:
        texts = [chunk.text async for chunk in MODEL.astream(HELLO)]
        return await MODEL.ainvoke(HELLO), await MODEL.abatch([HELLO] * 2), texts

    one, batch, texts = asyncio.run(generated())
    assert [answer.text for answer in (one, *batch)] == [GREETING] * 3
    assert "".join(texts) == GREETING
    assert [answer.text for answer in MODEL.batch([HELLO] * 2)] == [GREETING] * 2


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_called_tool_gets_its_result_sent_back(is_streamed: bool) -> None:
    model = MODEL.bind_tools([weather])
    chunks = list(model.stream([ASKED])) if is_streamed else [model.invoke([ASKED])]
    message = reduce(operator.add, chunks)
    (call,) = message.tool_calls
    assert (call["name"], call["args"]) == (TOOL, {"city": CITY})
    result = weather.invoke(call)
    assert isinstance(result, ToolMessage)
    assert model.invoke([ASKED, message, result]).text == ANSWER


@pytest.mark.parametrize(("choice", "allowed"), [("any", (Move, Turn)), ("Turn", (Turn,))])
def test_a_required_call_follows_its_schema_for_any_model(choice: str, allowed: Any) -> None:
    model = ChatOpenAI(model=BASE, max_completion_tokens=200, max_retries=0)
    bound = model.bind_tools([Move, Turn], tool_choice=choice, parallel_tool_calls=False)
    (call,) = bound.invoke([ASKED]).tool_calls
    (schema,) = (schema for schema in allowed if schema.__name__ == call["name"])
    schema.model_validate(call["args"])


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_follows_its_schema_for_any_model(method: Any) -> None:
    model = ChatOpenAI(model=BASE, max_completion_tokens=200, max_retries=0)
    structured = model.with_structured_output(Move, method=method)
    assert isinstance(structured.invoke(HELLO), Move)
    assert isinstance(list(structured.stream(HELLO))[-1], Move)


def test_texts_have_embeddings() -> None:
    model = OpenAIEmbeddings(model=BASE, check_embedding_ctx_length=False)
    first, second = model.embed_documents(["one", "two"])
    assert model.embed_query("one") == pytest.approx(first)
    assert len(first) == len(second) > 1
    assert first != second


def test_the_responses_api_gives_the_same_answers() -> None:
    model = ChatOpenAI(model=CALLER, temperature=0, max_retries=0, use_responses_api=True)
    assert model.invoke(HELLO).text == GREETING
    assert "".join(chunk.text for chunk in model.stream(HELLO)) == GREETING
    called = model.bind_tools([weather]).invoke([ASKED])
    result = weather.invoke(called.tool_calls[0])
    assert model.bind_tools([weather]).invoke([ASKED, called, result]).text == ANSWER


def test_a_refused_request_raises_the_error_of_openais_client() -> None:
    with pytest.raises(openai.NotFoundError, match="absent"):
        ChatOpenAI(model="absent", max_retries=0).invoke(HELLO)
