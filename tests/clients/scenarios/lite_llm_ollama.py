"""Scenarios of LiteLLM's providers `ollama_chat` and `ollama`."""

import json
import os
from typing import Any

import litellm
import pytest
from weather_chat import ANSWER, BASE, CALLER, CHAT_TOOL, CITY, GREETING, HELLO, QUESTION, SKY, TOOL

SETTINGS: dict[str, Any] = {
    "api_base": os.environ["OLLAMA_HOST"],
    "api_key": os.environ["OLLAMA_API_KEY"],
    "num_retries": 0,
}
GREETED = [{"role": "user", "content": HELLO}]
ASKED = [{"role": "user", "content": QUESTION}]
SCHEMA = {
    "type": "object",
    "properties": {"where": {"enum": ["left", "right"]}},
    "required": ["where"],
    "additionalProperties": False,
}


def ask(messages: list[Any], model: str = f"ollama_chat/{CALLER}", **fields: Any) -> Any:
    return litellm.completion(model=model, messages=messages, **SETTINGS, **fields)


@pytest.mark.parametrize("provider", ["ollama_chat", "ollama"])
def test_a_streamed_chat_is_the_whole_chat(provider: str) -> None:
    settings = {"extra_headers": {"Authorization": f"Bearer {SETTINGS['api_key']}"}}
    # `ollama` writes the conversation as one prompt with headings of its own.
    model = f"{provider}/{CALLER if provider == 'ollama_chat' else BASE}"
    fields = {"temperature": 0, "max_tokens": 12, "seed": 1, "frequency_penalty": 0}
    if provider == "ollama_chat":
        fields = {"max_tokens": 200}
    whole = ask(GREETED, model, **fields, **settings)
    chunks = list(ask(GREETED, model, stream=True, **fields, **settings))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert whole.usage.completion_tokens > 0
    if provider == "ollama_chat":
        assert text == GREETING
        assert whole.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_a_called_tool_gets_its_result_sent_back(stream: bool) -> None:
    answer = ask(ASKED, tools=[CHAT_TOOL], stream=stream)
    if stream:
        answer = litellm.stream_chunk_builder(list(answer))
    choice = answer.choices[0]
    (call,) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == (TOOL, {"city": CITY})
    assert choice.finish_reason == "tool_calls"
    result = {"role": "tool", "tool_call_id": call.id, "content": SKY}
    final = ask([*ASKED, choice.message, result], tools=[CHAT_TOOL])
    assert final.choices[0].message.content == ANSWER


def test_an_answer_follows_a_schema() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "turn", "schema": SCHEMA}}
    answer = ask(GREETED, f"ollama_chat/{BASE}", response_format=form, temperature=1)
    assert json.loads(answer.choices[0].message.content)["where"] in ("left", "right")


def test_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = litellm.module_level_client.client.headers
    with pytest.raises(litellm.AuthenticationError):  # it sends no key for embeddings
        litellm.embedding(model=f"ollama/{BASE}", input=["a"], **SETTINGS)
    monkeypatch.setitem(headers, "Authorization", f"Bearer {SETTINGS['api_key']}")
    answer = litellm.embedding(model=f"ollama/{BASE}", input=["a", "b"], **SETTINGS)
    assert len(answer.data) == 2


def test_an_unknown_model_is_an_error_that_says_so() -> None:
    with pytest.raises(Exception, match="not found"):
        ask(GREETED, "ollama_chat/nothing")
