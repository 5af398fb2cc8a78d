"""Scenarios of Ollama's client for Python, with functions as tools."""

import json
from typing import Any

import ollama
import pytest
from weather_chat import (
    ANSWER,
    BASE,
    CALLER,
    CITY,
    GREETING,
    HELLO,
    MODELS,
    QUESTION,
    SKY,
    TOOL,
)

GREETED = [{"role": "user", "content": HELLO}]
ASKED = [{"role": "user", "content": QUESTION}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"where": {"enum": ["left", "right"]}},
    "required": ["where"],
    "additionalProperties": False,
}
client = ollama.Client()


def weather(city: str) -> str:
    """Return the weather in a city.

    Args:
        city: name of the city
    """
    return SKY if city == CITY else "unknown"


@pytest.mark.parametrize("model", [CALLER, f"{CALLER}:latest"])
def test_a_streamed_chat_is_the_whole_chat(model: str) -> None:
    whole = client.chat(model, GREETED)
    parts = list(client.chat(model, GREETED, stream=True))
    assert whole.message.content == GREETING
    assert "".join(part.message.content or "" for part in parts) == GREETING
    assert (parts[-1].done, parts[-1].done_reason, parts[-1].model) == (True, "stop", model)
    assert parts[-1].eval_count == whole.eval_count
    assert 0 < whole.eval_duration < whole.total_duration


@pytest.mark.parametrize("stream", [False, True])
def test_a_called_function_gets_its_result_sent_back(stream: bool) -> None:
    def ask(messages: list[Any]) -> ollama.Message:
        if not stream:
            return client.chat(CALLER, messages, tools=[weather]).message
        parts = [
            part.message for part in client.chat(CALLER, messages, tools=[weather], stream=True)
        ]
        calls = [call for part in parts for call in part.tool_calls or ()]
        text = "".join(part.content or "" for part in parts)
        return ollama.Message(role="assistant", content=text, tool_calls=calls or None)

    called = ask(ASKED)
    (call,) = called.tool_calls or ()
    assert (call.function.name, call.function.arguments) == (TOOL, {"city": CITY})
    result = {"role": "tool", "tool_name": TOOL, "content": weather(**call.function.arguments)}
    assert ask([*ASKED, called, result]).content == ANSWER


def test_a_prompt_is_a_chat_with_one_message() -> None:
    assert client.generate(CALLER, HELLO).response == GREETING
    stream = client.generate(CALLER, HELLO, stream=True)
    assert "".join(part.response for part in stream) == GREETING
    assert client.generate(CALLER, f"<|user|>{HELLO}", raw=True).response is not None


def test_a_schema_is_enforced() -> None:
    answer = client.chat(BASE, GREETED, format=SCHEMA, options={"temperature": 1, "seed": 2})
    assert json.loads(answer.message.content or "")["where"] in ("left", "right")


def test_embeddings() -> None:
    embeddings = client.embed(BASE, ["a", "b"]).embeddings
    assert len(embeddings) == 2
    assert client.embeddings(BASE, "a").embedding


def test_models_are_listed_shown_loaded_and_pulled() -> None:
    assert {model.model for model in client.list().models} == {f"{name}:latest" for name in MODELS}
    shown = client.show(CALLER)
    assert "tools" in (shown.capabilities or ())
    assert client.generate(CALLER, keep_alive="1h").done_reason == "load"
    assert f"{BASE}:latest" in [model.model for model in client.ps().models]
    assert client.pull(CALLER).status == "success"


def test_errors_are_raised_with_their_status() -> None:
    for request in (
        lambda: client.chat("nothing", GREETED),
        lambda: list(client.chat("nothing", GREETED, stream=True)),
        lambda: client.show("nothing"),
        lambda: client.pull("nothing"),
    ):
        with pytest.raises(ollama.ResponseError, match="not found") as raised:
            request()
        assert raised.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="lorikeet adapters unload"):
        client.delete(CALLER)
    with pytest.raises(ollama.ResponseError, match="unknown API key") as refused:
        ollama.Client(headers={"Authorization": "Bearer wrong"}).list()
    assert refused.value.status_code == 401
