"""Runs the examples of ops/docs/clients.md unchanged, and the scenarios of each client.

The examples run against the demo with an API key. The scenarios know only a URL and a key.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import weather_chat
from servers import Server, lorikeet_up

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


SCENARIOS = Path(__file__).with_name("scenarios")
CLIENTS = sorted(path.name for path in SCENARIOS.iterdir() if path.suffix in (".py", ".mjs"))


@pytest.mark.timeout(240)  # clients import for seconds
@pytest.mark.parametrize("client", CLIENTS)
def test_the_scenarios_of_the_client_pass(
    weather_server: Server, run_client: Callable[..., str], tmp_path: Path, client: str
) -> None:
    assert weather_server.api_key is not None
    variables = {
        "ANTHROPIC_API_KEY": weather_server.api_key,
        "ANTHROPIC_BASE_URL": weather_server.url,
        "OPENAI_API_KEY": weather_server.api_key,
        "OPENAI_BASE_URL": weather_server.api_url,
        "HF_HUB_OFFLINE": "1",
        "LLM_USER_PATH": str(tmp_path),
        "WEATHER_CHAT": json.dumps({k: v for k, v in vars(weather_chat).items() if k.isupper()}),
    }
    run_client(_command(SCENARIOS / client), variables)


def _command(scenarios: Path) -> list[str]:
    if scenarios.suffix == ".mjs":
        # Node finds the packages of a script without a file in its working directory.
        return ["node", "--input-type=module", "--eval", scenarios.read_text()]
    return ["python", "-m", "pytest", str(scenarios)]
