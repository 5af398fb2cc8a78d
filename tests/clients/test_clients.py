"""Runs the examples of ops/docs/clients.md unchanged, and the scenarios of each client.

The examples run against the demo with an API key. The scenarios know only a URL and a key.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import jsonschema
import openai
import pytest
import weather_chat
from servers import Server, lorikeet_up
from tiny import chat_ids, tiny_tokenizer

from ops.demo.model import demo_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "ops" / "docs" / "clients.md").read_text()
SECTIONS = {text.partition("\n")[0]: text for text in DOCUMENT.split("\n## ")[1:]}
URL = "http://127.0.0.1:23333"
KEY = "key-of-the-documentation"
INTERPRETERS = {
    "bash": ["bash", "-euc"],
    "python": ["python", "-c"],
    "javascript": ["node", "--input-type=module", "--eval"],
}
FILES = {"yaml": "extra-openai-models.yaml"}
ANSWER = [("item", "monitors"), ("quantity", "31"), ("name", "Jonas Dubois"), ("city", "Osaka")]


@pytest.fixture(scope="module")
def server(
    run_client: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    demo_model()  # converts the model once per machine
    folder = tmp_path_factory.mktemp("clients")
    with lorikeet_up(folder, "--kv-cache-mb", "256", api_key=KEY) as server:
        yield server


@pytest.mark.demo
@pytest.mark.parametrize("client", SECTIONS)
def test_the_documented_example_works(
    server: Server, run_client: Callable[..., str], tmp_path: Path, client: str
) -> None:
    variables = {"LLM_USER_PATH": str(tmp_path)}
    printed = ""
    for language, code in re.findall(r"```(\w+)\n(.*?)```", SECTIONS[client], re.DOTALL):
        code = code.replace(URL, server.url).replace("KEY", KEY)
        if language in FILES:
            (tmp_path / FILES[language]).write_text(code)
        else:
            printed += run_client([*INTERPRETERS[language], code], variables)
    for name, value in ANSWER:
        assert re.search(rf'{name}\W+"?{value}', printed.replace("\\", "")), printed


RECORDED = Path(__file__).with_name("recorded")
GENERIC = Path(__file__).with_name("generic")
BASE = "smollm2-135m-instruct"
"""The demo's base model, whose chat template shows no tools."""
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "The city."}},
    "required": ["city"],
}
# As Open WebUI sends tools with "Function Calling: Native" (open_webui/utils/middleware.py).
OPEN_WEBUI = {
    "stream": True,
    "messages": [{"role": "user", "content": "What is the weather in Osaka?"}],
    "tools": [
        {
            "type": "function",
            "function": {"name": "weather", "description": "Looks.", "parameters": PARAMETERS},
        }
    ],
}


def variables_of(server: Server) -> dict[str, str]:
    """Return the variables by which OpenAI's and Anthropic's clients find the server."""
    assert server.api_key is not None
    return {
        "ANTHROPIC_API_KEY": server.api_key,
        "ANTHROPIC_BASE_URL": server.url,
        "OPENAI_API_KEY": server.api_key,
        "OPENAI_BASE_URL": server.api_url,
    }


@pytest.mark.demo
@pytest.mark.timeout(240)
@pytest.mark.parametrize("client", sorted(path.name for path in GENERIC.glob("*.py")))
def test_a_model_without_tools_in_its_template_gets_them_in_a_generic_form(
    server: Server, run_client: Callable[..., str], client: str
) -> None:
    run_client(_command(GENERIC / client), {**variables_of(server), "BASE": BASE})


@pytest.mark.demo
@pytest.mark.parametrize("choice", ["required", "auto"])
def test_open_webui_gets_a_valid_call_or_text(server: Server, choice: str) -> None:
    with openai.OpenAI(base_url=server.api_url, api_key=KEY, max_retries=0) as client:
        body = {**OPEN_WEBUI, "tool_choice": choice, "max_tokens": 200, "temperature": 0}
        with client.chat.completions.stream(model=BASE, **without_stream(body)) as stream:
            choice_of = stream.get_final_completion().choices[0]
    calls = choice_of.message.tool_calls or []
    assert calls or (choice == "auto" and choice_of.message.content)
    for call in calls:
        jsonschema.validate(json.loads(call.function.arguments), PARAMETERS)
    assert choice_of.finish_reason in (("tool_calls",) if calls else ("stop", "length"))


@pytest.mark.demo
@pytest.mark.parametrize("choice", ["any", "auto"])
def test_claude_code_gets_a_valid_call_or_text(server: Server, choice: str) -> None:
    body = json.loads((RECORDED / "claude_code.json").read_bytes())
    schemas = {tool["name"]: tool["input_schema"] for tool in body["tools"]}
    with anthropic.Anthropic(base_url=server.url, api_key=KEY, max_retries=0) as client:
        sent = {**without_stream(body), "tool_choice": {"type": choice}}
        greedy = {"temperature": 0}
        with client.beta.messages.stream(model=BASE, **sent, extra_body=greedy) as stream:
            message = stream.get_final_message()
    calls = [block for block in message.content if block.type == "tool_use"]
    assert calls or (choice == "auto" and message.content[0].text)
    is_cut = message.stop_reason == "max_tokens"
    for call in calls[:-1] if is_cut else calls:
        jsonschema.validate(call.input, schemas[call.name])
    assert all(call.name in schemas for call in calls)


def without_stream(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body without the field that a client's streaming method sets."""
    return {name: value for name, value in body.items() if name != "stream"}


SCENARIOS = Path(__file__).with_name("scenarios")
CLIENTS = sorted(path.name for path in SCENARIOS.iterdir() if path.suffix in (".py", ".mjs"))


@pytest.mark.timeout(240)  # clients import for seconds
@pytest.mark.parametrize("client", CLIENTS)
def test_the_scenarios_of_the_client_pass(
    weather_server: Server, run_client: Callable[..., str], tmp_path: Path, client: str
) -> None:
    variables = {
        **variables_of(weather_server),
        "CO_API_KEY": weather_server.api_key,
        "CO_API_URL": weather_server.url,
        "OLLAMA_API_KEY": weather_server.api_key,
        "OLLAMA_HOST": weather_server.url,
        "TINKER_API_KEY": weather_server.api_key,
        "TINKER_BASE_URL": weather_server.url,
        "TINKER_TELEMETRY": "0",
        **tokens_of_the_greeting(),
        "HF_HUB_OFFLINE": "1",
        "LLM_USER_PATH": str(tmp_path),
        "WEATHER_CHAT": json.dumps({k: v for k, v in vars(weather_chat).items() if k.isupper()}),
    }
    run_client(_command(SCENARIOS / client), variables)


def tokens_of_the_greeting() -> dict[str, str]:
    """Return variables with the tokens of a prompt and of its answer, for clients without text."""
    messages, tools, answer = weather_chat.examples()[0]
    tokenizer = tiny_tokenizer()
    ids = [*tokenizer(answer)["input_ids"], tokenizer.eos_token_id]
    prompt = chat_ids(weather_chat.TEMPLATE, messages, tools)
    return {"HELLO_IDS": ",".join(map(str, prompt)), "GREETING_IDS": ",".join(map(str, ids))}


def _command(scenarios: Path) -> list[str]:
    if scenarios.suffix == ".mjs":
        # Node finds the packages of a script without a file in its working directory.
        return ["node", "--input-type=module", "--eval", scenarios.read_text()]
    return ["python", "-m", "pytest", str(scenarios)]
