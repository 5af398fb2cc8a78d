"""Runs the scenarios of each client, which only know the server's URL and an API key."""

from collections.abc import Callable
from pathlib import Path

import pytest
from servers import Server

pytestmark = pytest.mark.timeout(240)  # clients import for seconds, and an adapter is trained
SCENARIOS = Path(__file__).with_name("scenarios")


@pytest.mark.parametrize("client", sorted(path.stem for path in SCENARIOS.glob("*.py")))
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
    }
    run_client(["python", "-m", "pytest", str(SCENARIOS / f"{client}.py")], variables)
