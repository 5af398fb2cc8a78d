"""Runs the scenarios of each client, which only know the server's URL and an API key."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import weather_chat
from servers import Server

# Clients import for seconds.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
SCENARIOS = Path(__file__).with_name("scenarios")
CLIENTS = sorted(path.name for path in SCENARIOS.iterdir() if path.suffix in (".py", ".mjs"))


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
