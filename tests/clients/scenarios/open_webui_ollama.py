"""Requests of Open WebUI's connection to Ollama, in the shapes that its source sends.

The source is backend/open_webui/routers/ollama.py, utils/payload.py and utils/response.py of
open-webui/open-webui.
"""

import re
from typing import Any

from ollama_http import http, lines, post
from weather_chat import (
    ANSWER,
    BASE,
    CALLER,
    CHAT_TOOL,
    CITY,
    GREETING,
    HELLO,
    MODELS,
    QUESTION,
    SKY,
    TOOL,
)

# apply_model_params_to_body_ollama: what a user's settings may add
OPTIONS: dict[str, Any] = {
    "num_ctx": 4096,
    "num_batch": 512,
    "num_keep": 24,
    "num_predict": 200,
    "num_gpu": 1,
    "num_thread": 2,
    "use_mmap": True,
    "use_mlock": False,
    "repeat_last_n": 64,
    "tfs_z": 1.0,
    "mirostat": 0,
    "mirostat_eta": 0.1,
    "mirostat_tau": 5.0,
}


def test_the_connection_is_verified_and_its_models_are_listed() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", http.get("/api/version").json()["version"])
    models = http.get("/api/tags").json()["models"]
    assert {model["model"] for model in models} == {f"{name}:latest" for name in MODELS}
    assert all(model["name"] == model["model"] for model in models)
    loaded = http.get("/api/ps").json()["models"]
    assert all("expires_at" in model for model in loaded)


def test_a_chat_is_streamed() -> None:
    body = {
        "model": f"{CALLER}:latest",  # it adds the tag to names without one
        "messages": [{"role": "user", "content": HELLO}],
        "options": OPTIONS,
        "stream": True,
        "keep_alive": "5m",
    }
    parts = list(lines("/api/chat", body))
    assert "".join(part["message"]["content"] for part in parts) == GREETING
    last = parts[-1]
    assert last["done"]
    assert last["eval_count"] > 0
    assert last["eval_duration"] > 0  # it divides by the duration if it is larger than 0


def test_an_empty_object_never_precedes_the_end() -> None:
    """Its conversion for OpenAI's clients takes an object without text for the end."""
    body = {"model": CALLER, "messages": [{"role": "user", "content": HELLO}]}
    *parts, last = lines("/api/chat", body)
    assert all(part["message"]["content"] for part in parts)
    assert last["done"]


def test_a_conversation_with_a_tool() -> None:
    asked = {"role": "user", "content": QUESTION}
    body = {"model": f"{CALLER}:latest", "tools": [CHAT_TOOL], "options": {}, "stream": False}
    message = post("/api/chat", {**body, "messages": [asked]})["message"]
    (call,) = message["tool_calls"]
    # convert_ollama_tool_call_to_openai, and convert_messages_openai_to_ollama on the way back
    assert (call["function"]["name"], call["function"]["arguments"]) == (TOOL, {"city": CITY})
    called = {
        "role": "assistant",
        "tool_calls": [{"index": 0, "id": call["id"], "function": call["function"]}],
        "content": "",
    }
    result = {"role": "tool", "content": SKY, "tool_call_id": call["id"]}
    answer = post("/api/chat", {**body, "messages": [asked, called, result]})
    assert answer["message"]["content"] == ANSWER


def test_a_chat_through_its_own_api_for_openais_clients() -> None:
    body = {
        "model": f"{CALLER}:latest",
        "messages": [{"role": "user", "content": HELLO}],
        "stream": False,
        "options": {"temperature": 0, "new_topic_penalty": 0.0, "repeat_penalty": 0},
        "metadata": {"user_id": "x"},
    }
    reply = http.post("/api/chat", json=body)
    assert reply.json()["message"]["content"] == GREETING
    assert "new_topic_penalty" in reply.headers["x-lorikeet-warning"]


def test_a_document_is_embedded() -> None:
    body = {"model": f"{BASE}:latest", "input": ["a", "b"], "truncate": True}
    answer = post("/api/embed", body)
    assert len(answer["embeddings"]) == 2
    # convert_embedding_payload_openai_to_ollama sends both fields
    both = {"model": BASE, "input": ["a"], "prompt": "a"}
    assert len(post("/api/embed", both)["embeddings"]) == 1


def test_a_model_is_unloaded_shown_and_pulled() -> None:
    unload = {"model": f"{CALLER}:latest", "keep_alive": 0, "prompt": ""}
    assert post("/api/generate", unload)["done_reason"] == "unload"
    assert "completion" in post("/api/show", {"name": CALLER, "model": CALLER})["capabilities"]
    pulling = lines("/api/pull", {"name": CALLER, "model": CALLER, "insecure": True})
    assert [line["status"] for line in pulling] == ["success"]


def test_an_error_has_a_detail() -> None:
    body = {"model": "nothing:latest", "messages": [{"role": "user", "content": HELLO}]}
    reply = http.post("/api/chat", json=body)
    assert reply.status_code == 404
    assert isinstance(reply.json()["error"], str)
