"""Runs the examples of ops/docs/clients.md unchanged, against the demo with an API key."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Server, lorikeet_up

from ops.demo.model import demo_model

pytestmark = pytest.mark.demo

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv-clients"
DOCUMENT = (ROOT / "ops" / "docs" / "clients.md").read_text()
SECTIONS = {text.partition("\n")[0]: text for text in DOCUMENT.split("\n## ")[1:]}
URL = "http://127.0.0.1:23333"
KEY = "key-of-the-documentation"
INTERPRETERS = {
    "bash": ["bash", "-euc"],
    "python": [str(VENV / "bin" / "python"), "-c"],
    "javascript": [str(VENV / "bin" / "node"), "--input-type=module", "--eval"],
}
FILES = {"yaml": "extra-openai-models.yaml"}
ANSWER = [("item", "monitors"), ("quantity", "31"), ("name", "Jonas Dubois"), ("city", "Osaka")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if not (VENV / ".ready").exists():
        pytest.skip("`make clients` installs the clients")
    demo_model()  # converts the model once per machine
    folder = tmp_path_factory.mktemp("clients")
    with lorikeet_up(folder, "--kv-cache-mb", "256", api_key=KEY) as server:
        yield server


@pytest.mark.parametrize("client", SECTIONS)
def test_the_documented_example_works(server: Server, tmp_path: Path, client: str) -> None:
    printed = ""
    for language, code in re.findall(r"```(\w+)\n(.*?)```", SECTIONS[client], re.DOTALL):
        code = code.replace(URL, server.url).replace("KEY", KEY)
        if language in FILES:
            (tmp_path / FILES[language]).write_text(code)
        else:
            printed += run([*INTERPRETERS[language], code], tmp_path)
    for name, value in ANSWER:
        assert re.search(rf'{name}\W+"?{value}', printed.replace("\\", "")), printed


def run(words: list[str], folder: Path) -> str:
    """Run a command, which must succeed, and return its output."""
    env = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "PATH": f"{VENV / 'bin'}:{os.environ['PATH']}",
        "LLM_USER_PATH": str(folder),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # otherwise it downloads prices
    }
    # Node finds packages relative to the working directory.
    done = subprocess.run(
        words, cwd=VENV, env=env, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
