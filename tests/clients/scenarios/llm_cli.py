"""Scenarios of the command line `llm`."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from weather_chat import ANSWER, BASE, CALLER, GREETING, HELLO, QUESTION

MODELS = """
- model_id: {name}
  model_name: {name}
  api_base: {url}
  api_key_name: lorikeet
  supports_schema: true
  supports_tools: true
"""
WEATHER = '''
def weather(city: str) -> str:
    """Return the weather in a city."""
    return "sunny"
'''
SCHEMA = {
    "type": "object",
    "properties": {"where": {"enum": ["left", "right"]}, "far": {"type": "boolean"}},
    "required": ["where", "far"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module", autouse=True)
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("llm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_USER_PATH", str(folder))
        url = os.environ["OPENAI_BASE_URL"]
        models = "".join(MODELS.format(name=name, url=url) for name in (BASE, CALLER))
        Path(folder, "extra-openai-models.yaml").write_text(models)
        llm("keys", "set", "lorikeet", "--value", os.environ["OPENAI_API_KEY"])
        yield


def llm(*words: str) -> str:
    done = subprocess.run(["llm", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.removesuffix("\n")


def test_a_whole_answer_begins_a_conversation() -> None:
    assert llm("-m", CALLER, "--no-stream", HELLO) == GREETING
    llm("-c", "-o", "max_tokens", "3", "And you?")
    first, second = json.loads(llm("logs", "-n", "2", "--json"))
    assert first["conversation_id"] == second["conversation_id"]
    assert second["input_tokens"] > first["input_tokens"] + len(GREETING)


def test_the_tool_is_executed() -> None:
    assert llm("-m", CALLER, "--functions", WEATHER, QUESTION) == ANSWER


def test_the_answer_follows_its_schema_for_any_model() -> None:
    answer = llm("-m", BASE, "--schema", json.dumps(SCHEMA), "-o", "max_tokens", "200", HELLO)
    move = json.loads(answer)
    assert move.keys() == {"where", "far"}
    assert move["where"] in ("left", "right")
