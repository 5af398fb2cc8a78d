"""Scenarios of LiteLLM's proxy in front of the server."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from weather_chat import ANSWER, BASE, CALLER, CHAT_TOOL, CITY, GREETING, HELLO, QUESTION, SKY

KEY = "sk-key-of-the-proxy"
CONFIG = f"""
model_list:
- model_name: forecaster
  litellm_params: &server
    model: openai/{CALLER}
    api_base: os.environ/OPENAI_BASE_URL
    api_key: os.environ/OPENAI_API_KEY
- model_name: embedder
  litellm_params:
    <<: *server
    model: openai/{BASE}
general_settings:
  master_key: {KEY}
"""
START_TIMEOUT_S = 60.0
GREETED: dict[str, Any] = {"role": "user", "content": HELLO}
ASKED: dict[str, Any] = {"role": "user", "content": QUESTION}
MODEL = "forecaster"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """Start a proxy, and return a client of it."""
    folder = tmp_path_factory.mktemp("proxy")
    (folder / "config.yaml").write_text(CONFIG)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    words = ["litellm", "--config", "config.yaml", "--host", "127.0.0.1", "--port", port]
    log = folder / "proxy.log"
    with log.open("wb") as output:
        proxy = subprocess.Popen(words, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/health/readiness", proxy, log)
        with openai.OpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0
        ) as client:
            yield client
    finally:
        proxy.kill()
        proxy.wait()


def wait_until_ready(url: str, proxy: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not is_ready(url):
        assert proxy.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def is_ready(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def test_a_streamed_chat_is_the_whole_chat(client: openai.OpenAI) -> None:
    body: Any = {"model": MODEL, "messages": [GREETED]}
    whole = client.chat.completions.create(**body)
    usage = {"stream_options": {"include_usage": True}}
    with client.chat.completions.stream(**body, **usage) as stream:
        streamed = stream.get_final_completion()
    assert streamed.choices[0].message.content == whole.choices[0].message.content == GREETING
    assert streamed.choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert streamed.usage.total_tokens == whole.usage.total_tokens


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_called_tool_gets_its_result_sent_back(client: openai.OpenAI, is_streamed: bool) -> None:
    body: Any = {"model": MODEL, "tools": [CHAT_TOOL]}
    if is_streamed:
        with client.chat.completions.stream(**body, messages=[ASKED]) as stream:
            message = stream.get_final_completion().choices[0].message
    else:
        message = client.chat.completions.create(**body, messages=[ASKED]).choices[0].message
    (call,) = message.tool_calls
    assert json.loads(call.function.arguments) == {"city": CITY}
    result = {"role": "tool", "tool_call_id": call.id, "content": SKY}
    answer = client.chat.completions.create(**body, messages=[ASKED, message, result])
    assert answer.choices[0].message.content == ANSWER


def test_responses_and_embeddings_pass_through_the_proxy(client: openai.OpenAI) -> None:
    assert client.responses.create(model=MODEL, input=HELLO).output_text == GREETING
    made = client.embeddings.create(model="embedder", input=["one", "two"])
    assert made.data[0].embedding != made.data[1].embedding


def test_errors_keep_their_types(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model=MODEL, messages=[GREETED], temperature=-1)
