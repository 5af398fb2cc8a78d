"""A user follows LMDeploy's page "Serving LoRA", step by step, with Lorikeet as the server.

https://lmdeploy.readthedocs.io/en/latest/advance/pytorch_lora.html is the page. The server of the
tests was started as in its first section, with `--adapters NAME=PATH` for each adapter.
"""

import json
import time
from typing import Any

import httpx
import openai
import pytest
from served_tiny import ANSWER, BASE, NAMES, POLYGLOT, QUESTION, TinyModels
from servers import Server

CHATS = "/v1/chat/completions"
HEADERS = {"accept": "application/json", "Content-Type": "application/json"}
"""Headers of the page's curl command."""
BODY: dict[str, Any] = {
    "model": POLYGLOT,
    "messages": [{"content": QUESTION, "role": "user"}],
    "temperature": 0,
}
"""Body of the page's curl command, with the adapter and the question of these tests.

The temperature is added, because a sampled answer of the tiny adapter isn't always `ANSWER`.
"""
OUTPUT: dict[str, Any] = {
    "id": "2",
    "object": "chat.completion",
    "created": 1721377275,
    "model": "mylora",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "…", "tool_calls": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 17, "total_tokens": 43, "completion_tokens": 26},
}
"""The page's output of this command."""
ADDED = {
    *("system_fingerprint", "weight_version", "choices[0].stop_reason", "choices[0].matched_stop"),
    "usage.prompt_tokens_details.cached_tokens",
    "usage.completion_tokens_details.reasoning_tokens",
}
"""Fields that Lorikeet's answers have in addition."""
SAMPLING: dict[str, Any] = {"temperature": 0.8, "top_p": 0.8}
"""Sampling of the page's Python example."""
CHINESE = "你好世界中文"


@pytest.fixture
def page_client(server: Server) -> openai.OpenAI:
    """Client as in the page, with an API key that the server doesn't need."""
    return openai.OpenAI(api_key="YOUR_API_KEY", base_url=server.api_url, max_retries=0)


def types_by_path(value: Any, path: str = "") -> dict[str, str]:
    """Return the type of each part of a JSON value that isn't an object or a list."""
    if isinstance(value, dict):
        parts = [(f"{path}.{name}".removeprefix("."), item) for name, item in value.items()]
    elif isinstance(value, list):
        parts = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    else:
        return {path: type(value).__name__}
    return {name: kind for part, item in parts for name, kind in types_by_path(item, part).items()}


async def curl(http: httpx.AsyncClient, body: str) -> httpx.Response:
    """Send a body as the page's curl command does."""
    response = await http.post(CHATS, content=body.encode(), headers=HEADERS)
    assert response.status_code == 200, response.text
    return response


# Launch LoRA


async def test_swagger_ui_and_the_list_show_the_names_of_the_base_and_the_adapters(
    http: httpx.AsyncClient, page_client: openai.OpenAI
) -> None:
    page = await http.get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "swagger-ui" in page.text
    assert "url: '/openapi.json'" in page.text
    document = (await http.get("/openapi.json")).json()
    model = document["components"]["schemas"]["ChatCompletionRequest"]["properties"]["model"]
    assert model["enum"] == [BASE, *sorted(NAMES[1:])]
    operation = document["paths"][CHATS]["post"]
    examples = operation["requestBody"]["content"]["application/json"]["examples"]
    assert {example["value"]["model"] for example in examples.values()} == set(NAMES)
    assert {card.id for card in page_client.models.list()} == set(NAMES)


# Client usage: CLI


async def test_the_output_has_the_keys_and_types_of_the_pages_output(
    http: httpx.AsyncClient, models: TinyModels
) -> None:
    output = (await curl(http, json.dumps(BODY, indent=2))).json()
    expected = types_by_path(OUTPUT)
    given = types_by_path(output)
    assert {path: given.get(path) for path in expected} == expected
    assert given.keys() - expected.keys() == ADDED
    [choice] = output["choices"]
    assert choice["message"] == {"role": "assistant", "content": ANSWER, "tool_calls": None}
    assert choice["logprobs"] is None
    assert choice["finish_reason"] == "stop"
    assert output["object"] == "chat.completion"
    assert output["model"] == POLYGLOT
    assert abs(output["created"] - time.time()) < 60
    usage = output["usage"]
    assert usage["prompt_tokens"] == len(models.chat_ids(QUESTION))
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_chinese_is_answered_as_readable_utf_8(http: httpx.AsyncClient) -> None:
    readable = await curl(http, json.dumps(BODY, ensure_ascii=False))
    escaped = await curl(http, json.dumps(BODY, ensure_ascii=True))
    for response in (readable, escaped):
        assert response.headers["Content-Type"].startswith("application/json")
        assert all(character.encode() in response.content for character in CHINESE)
        assert response.json()["choices"][0]["message"]["content"] == ANSWER


# Client usage: python


def test_the_python_example_prints_what_the_page_shows(page_client: openai.OpenAI) -> None:
    response = page_client.chat.completions.create(
        model=POLYGLOT, messages=[{"role": "user", "content": QUESTION}], **SAMPLING
    )
    printed = str(response)
    assert printed.startswith("ChatCompletion(id=")
    for shown in (
        "choices=[Choice(finish_reason='stop', index=0, logprobs=None, message=",
        "ChatCompletionMessage(content=",
        "role='assistant'",
        "function_call=None, tool_calls=None",
        f"model='{POLYGLOT}', object='chat.completion'",
        "service_tier=None",
        "usage=CompletionUsage(completion_tokens=",
    ):
        assert shown in printed
    assert response.choices[0].message.content == ANSWER
