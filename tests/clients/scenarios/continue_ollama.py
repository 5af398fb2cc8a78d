"""Requests of Continue's provider for Ollama, in the shapes that its source sends.

The source is core/llm/llms/Ollama.ts of continuedev/continue.
"""

import re
from typing import Any

import pytest
from ollama_http import http, lines, post
from weather_chat import BASE, CALLER, CHAT_TOOL, CITY, GREETING, HELLO, MODELS, QUESTION, SKY, TOOL

# _getModelFileParams: fields without a value are left out
OPTIONS: dict[str, Any] = {
    "temperature": 0.0,
    "num_predict": 200,
    "stop": ["<|none|>"],
    "num_ctx": 8192,
}


def test_a_model_is_shown_and_its_context_length_is_found() -> None:
    shown = post("/api/show", {"name": CALLER})
    found = [
        re.fullmatch(r'(\S+)\s+((?:".*")|\S+)', line) for line in shown["parameters"].split("\n")
    ]
    parameters = {match[1]: match[2] for match in found if match}
    assert int(parameters["num_ctx"]) > 0
    assert ".Suffix" not in shown["template"]  # otherwise it sends suffixes


def test_a_chat_is_streamed_and_calls_a_tool() -> None:
    asked = {"role": "user", "content": QUESTION}
    body = {
        "model": CALLER,
        "messages": [asked],
        "options": OPTIONS,
        "keep_alive": 1800,
        "stream": True,
        "tools": [CHAT_TOOL],
    }
    calls = [
        call for part in lines("/api/chat", body) for call in part["message"].get("tool_calls", ())
    ]
    assert [call["function"]["arguments"] for call in calls] == [{"city": CITY}]
    called = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": TOOL, "arguments": {"city": CITY}}}],
    }
    # The last message isn't the user's, so the request has no tools.
    del body["tools"]
    result = {"role": "tool", "content": SKY}
    parts = list(lines("/api/chat", {**body, "messages": [asked, called, result]}))
    assert parts[-1]["done_reason"] in ("stop", "length")
    assert {part["message"]["role"] for part in parts} == {"assistant"}


def test_a_completion_is_streamed() -> None:
    body = {
        "model": CALLER,
        "prompt": HELLO,
        "raw": False,
        "options": OPTIONS,
        "keep_alive": 1800,
        "stream": True,
    }
    text = "".join(part["response"] for part in lines("/api/generate", body))
    assert text == GREETING


def test_models_are_listed_and_chunks_embedded() -> None:
    assert {model["name"] for model in http.get("/api/tags").json()["models"]} == {
        f"{name}:latest" for name in MODELS
    }
    answer = post("/api/embed", {"model": BASE, "input": ["a", "b"]})
    assert len(answer["embeddings"]) == 2


@pytest.mark.parametrize("accept", ["*/*", "application/json"])
def test_programs_that_look_for_ollama_find_it(accept: str) -> None:
    found = http.get("/", headers={"Accept": accept})
    assert found.text == "Ollama is running"
    assert http.head("/").status_code == 200  # the heartbeat of Ollama's client for Go
