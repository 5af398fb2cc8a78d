"""Provides the clients' environment, and a server of a tiny model that calls tools."""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from recital import save_recital, save_reciting_base
from servers import Server, lorikeet_up, show_logs
from tiny import chat_ids
from weather_chat import BASE, CALLER, TEMPLATE, examples

pytest_runtest_makereport = show_logs

VENV = Path(__file__).parents[2] / ".venv-clients"
KEY = "tml-key-of-the-clients"
"""Key of the server. Tinker's client demands the prefix."""
TIMEOUT_S = 100.0


@pytest.fixture(scope="session")
def run_client() -> Callable[..., str]:
    """Return a function that runs a command of the clients' environment and returns its output.

    The command must succeed.
    """
    if not (VENV / ".ready").exists():
        pytest.skip("`make clients` installs the clients")
    return _run


@pytest.fixture(scope="session")
def weather_server(
    run_client: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Start a server of the models of `weather_chat`, with an API key."""
    folder = tmp_path_factory.mktemp("weather")
    # Some clients send instructions of several thousand characters.
    save_reciting_base(folder / BASE, max_position_embeddings=32768)
    (folder / BASE / "chat_template.jinja").write_text(TEMPLATE)
    answers = [(chat_ids(TEMPLATE, asked, tools), text) for asked, tools, text in examples()]
    caller = save_recital(folder / CALLER, answers)
    # Some clients can't send a temperature.
    (caller / "generation_config.json").write_text('{"do_sample": false}')
    flags = ["--model", str(folder / BASE), "--adapters", f"{CALLER}={caller}"]
    budgets = ["--dtype", "float32", "--kv-cache-mb", "256"]
    with lorikeet_up(folder, *flags, *budgets, api_key=KEY) as server:
        yield server
        assert "Traceback" not in server.log_text()


def _run(words: list[str], variables: Mapping[str, str]) -> str:
    env = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "PATH": f"{VENV / 'bin'}:{os.environ['PATH']}",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # otherwise it downloads prices
        **variables,
    }
    # Node finds packages relative to the working directory.
    done = subprocess.run(
        words, cwd=VENV, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
