"""Scenarios of LlamaIndex with its models for servers of OpenAI's API."""

import asyncio
import os
from typing import Any, Literal

import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, ConfigDict
from weather_chat import (
    ANSWER,
    BASE,
    CALLER,
    CITY,
    DESCRIPTION,
    GREETING,
    HELLO,
    QUESTION,
    SKY,
    TOOL,
)

SERVER = {
    "api_base": os.environ["OPENAI_BASE_URL"],
    "api_key": os.environ["OPENAI_API_KEY"],
    "max_retries": 0,
}
CHAT = {**SERVER, "is_chat_model": True, "is_function_calling_model": True}
MODEL = OpenAILike(model=CALLER, temperature=0, **CHAT)
GREETED = [ChatMessage(HELLO)]


class Move(BaseModel):
    model_config = ConfigDict(extra="forbid")  # any model would fill its answer with other keys

    where: Literal["left", "right"]
    far: bool


def look_up(city: str) -> str:
    assert city == CITY
    return SKY


WEATHER = FunctionTool.from_defaults(look_up, name=TOOL, description=DESCRIPTION)


def test_a_streamed_chat_is_the_whole_chat() -> None:
    assert MODEL.chat(GREETED).message.content == GREETING
    responses = list(MODEL.stream_chat(GREETED))
    assert "".join(response.delta or "" for response in responses) == GREETING
    assert responses[-1].message.content == GREETING


def test_chats_are_generated_asynchronously() -> None:
    async def chats() -> list[Any]:
        streamed = [response async for response in await MODEL.astream_chat(GREETED)]
        return [await MODEL.achat(GREETED), streamed[-1]]

    assert [chat.message.content for chat in asyncio.run(chats())] == [GREETING] * 2


def test_a_prompt_is_completed_as_a_chat_or_as_a_text() -> None:
    assert MODEL.complete(HELLO).text == GREETING
    model = OpenAILike(model=BASE, temperature=0, max_tokens=30, **SERVER)
    whole = model.complete(HELLO).text
    assert whole
    assert "".join(part.delta or "" for part in model.stream_complete(HELLO)) == whole


def test_the_model_calls_the_tool_and_uses_its_result() -> None:
    called = MODEL.chat_with_tools([WEATHER], QUESTION)
    (call,) = MODEL.get_tool_calls_from_response(called)
    assert (call.tool_name, call.tool_kwargs) == (TOOL, {"city": CITY})
    result = ChatMessage(
        WEATHER(**call.tool_kwargs).content,
        role=MessageRole.TOOL,
        additional_kwargs={"tool_call_id": call.tool_id},
    )
    history = [ChatMessage(QUESTION), called.message, result]
    assert MODEL.chat_with_tools([WEATHER], chat_history=history).message.content == ANSWER


def test_a_streamed_call_is_the_whole_call() -> None:
    responses = list(MODEL.stream_chat_with_tools([WEATHER], QUESTION))
    (call,) = MODEL.get_tool_calls_from_response(responses[-1])
    assert (call.tool_name, call.tool_kwargs) == (TOOL, {"city": CITY})


def test_a_predicted_call_is_executed() -> None:
    response = MODEL.predict_and_call([WEATHER], QUESTION)
    assert response.response == SKY
    assert [output.tool_name for output in response.sources] == [TOOL]


@pytest.mark.parametrize("is_schema_of_the_format", [False, True])
def test_a_structured_prediction_follows_its_schema_for_any_model(
    is_schema_of_the_format: bool,
) -> None:
    model = OpenAILike(
        model=BASE,
        max_tokens=200,
        should_use_structured_outputs=is_schema_of_the_format,
        **CHAT,
    )
    assert isinstance(model.structured_predict(Move, PromptTemplate(HELLO)), Move)
    assert isinstance(model.as_structured_llm(Move).chat(GREETED).raw, Move)


def test_texts_have_embeddings() -> None:
    model = OpenAILikeEmbedding(model_name=BASE, **SERVER)
    first, second = model.get_text_embedding_batch(["one", "two"])
    assert model.get_query_embedding("one") == pytest.approx(first)
    assert len(first) == len(second) > 1
    assert first != second
