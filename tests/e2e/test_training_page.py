"""The page "From a trainer to the server": its programs and commands, run as they are written."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from servers import LORIKEET, Server, lorikeet_up

from ops.demo.model import demo_model

pytestmark = [pytest.mark.long, pytest.mark.demo]

PAGE = Path(__file__).parents[2] / "ops" / "docs" / "training-to-served.md"
SAVED = re.compile(r"(\w+\.py)[.:].*?^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
URL = "http://127.0.0.1:23333"
"""URL of the server on the page."""
NOT_RUN = ("lorikeet up", "lorikeet chat", "pip install", ". .venv", "BASE=", "export")
"""Starts of the commands that the fixtures replace, or that need a terminal."""


def page_commands() -> list[list[str]]:
    """Return the words of the commands that the page shows, without comments."""
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if not line.startswith(NOT_RUN)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with lorikeet_up(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.mark.timeout(1200)
def test_an_adapter_is_trained_sent_tried_out_promoted_and_rolled_back(
    server: Server, tmp_path: Path
) -> None:
    for name, text in SAVED.findall(PAGE.read_text()):
        (tmp_path / name).write_text(text.replace(URL, server.url))
    env = {**os.environ, "LORIKEET_URL": server.url, "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    shown, versions = {}, []
    for words in page_commands():
        program = {"python": sys.executable, "lorikeet": str(LORIKEET)}[words[0]]
        rest = [str(demo_model()) if word == "$BASE" else word for word in words[1:]]
        done = subprocess.run(
            [program, *rest], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        shown[" ".join(words[1:3])] = done.stdout
        if words[0] == "lorikeet":
            found = httpx.get(f"{server.url}/v1/adapters/triage").json()
            versions.append(found["version"])
        if words[1:3] == ["adapters", "push"] and "--canary" not in words:
            assert _label(server, "Where is my parcel?") == "shipping"
    first, second = versions[0], versions[-3]
    assert first != second
    assert versions == [first] * 4 + [second] + [first] * 2  # pushed, ..., promoted, rolled back
    assert "canary of 10 %" in shown["adapters candidate"]
    assert shown["which.py"].split()[-1] in (first, second)


def _label(server: Server, ticket: str) -> str:
    body = {"model": "triage", "messages": [{"role": "user", "content": ticket}]}
    reply = httpx.post(
        f"{server.url}/v1/chat/completions",
        json={**body, "temperature": 0, "max_tokens": 8},
        timeout=60,
    )
    return str(reply.json()["choices"][0]["message"]["content"])
