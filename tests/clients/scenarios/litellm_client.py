"""Scenarios of LiteLLM's client."""

import json
from typing import Any

import litellm
from weather_chat import ANSWER, BASE, CALLER, CHAT_TOOL, CITY, GREETING, HELLO, QUESTION, SKY

ASKED: dict[str, Any] = {"role": "user", "content": QUESTION}
GREETED: dict[str, Any] = {"role": "user", "content": HELLO}
MODEL = f"openai/{CALLER}"


def test_a_streamed_chat_is_the_whole_chat() -> None:
    whole = litellm.completion(model=MODEL, messages=[GREETED])
    chunks = list(litellm.completion(model=MODEL, messages=[GREETED], stream=True))
    assert whole.choices[0].message.content == GREETING
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == GREETING
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "stop"


def test_a_called_tool_gets_its_result_sent_back() -> None:
    body: dict[str, Any] = {"model": MODEL, "tools": [CHAT_TOOL]}
    message = litellm.completion(**body, messages=[ASKED]).choices[0].message
    (call,) = message.tool_calls
    assert json.loads(call.function.arguments) == {"city": CITY}
    result = {"role": "tool", "tool_call_id": call.id, "content": SKY}
    answer = litellm.completion(**body, messages=[ASKED, message, result])
    assert answer.choices[0].message.content == ANSWER


def test_responses_are_the_same_as_chats() -> None:
    assert litellm.responses(model=MODEL, input=HELLO).output_text == GREETING
    events = list(litellm.responses(model=MODEL, input=HELLO, stream=True))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == GREETING


def test_texts_have_embeddings() -> None:
    made = litellm.embedding(model=f"openai/{BASE}", input=["one", "two"])
    first, second = (item["embedding"] for item in made.data)
    assert len(first) == len(second) > 1
    assert first != second
