"""Adapters of a hub, from a revision and with a token. The hub is a server of this test."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from threaded_server import LocalServer, QuietHandler, running

from shared.adapter_flags import is_hub_id

TOKEN = "hf_secret"
FILE = "adapter_config.json"
COMMITS = {"main": "a" * 40, "v2": "b" * 40}
LOCATE = """
import sys
from shared.errors import AdapterRejected, SourceFailed
from worker.lora.checkpoint.adapter_files import adapter_folder
for source in sys.argv[1:]:
    try:
        print((adapter_folder(source) / "adapter_config.json").read_text())
    except SourceFailed as error:
        print(error.code)
    except AdapterRejected as error:
        print("rejected")
"""


class Hub(QuietHandler):
    """The routes of the hub that a download of org/repo needs."""

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def _answer(self, *, has_body: bool) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        organisation, name, route, revision = parts[2:6] if is_api else parts[:4]
        commit = COMMITS.get(revision, revision if revision in COMMITS.values() else "")
        is_known = (organisation, name) == ("org", "repo")
        if self.headers["Authorization"] != f"Bearer {TOKEN}" or not is_known:
            self._send(401, b"", {"X-Error-Code": "RepoNotFound"}, has_body=has_body)
        elif not commit:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"}, has_body=has_body)
        elif is_api:
            names = [{"rfilename": FILE}]
            info = {"id": "org/repo", "sha": commit, "siblings": names}
            tree = [{"type": "file", "path": FILE, "size": len(commit), "oid": commit}]
            body = json.dumps(tree if route == "tree" else info).encode()
            self._send(200, body, {"Content-Type": "application/json"}, has_body=has_body)
        else:
            headers = {"ETag": f'"{commit}"', "X-Repo-Commit": commit}
            self._send(200, commit.encode(), headers, has_body=has_body)

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, has_body: bool) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if has_body:
            self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[str]:
    with running(LocalServer(Hub)) as server:
        yield server.url


def located(endpoint: str, home: Path, *sources: str, token: str = TOKEN) -> list[str]:
    """Return what a process with its own cache of the hub prints of each source."""
    env = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_TOKEN": token,
        "HF_HUB_DISABLE_XET": "1",
    }
    command = [sys.executable, "-c", LOCATE, *sources]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


def test_a_revision_is_read_with_the_token(hub: str, tmp_path: Path) -> None:
    sources = "org/repo", "org/repo@v2", f"org/repo@{COMMITS['v2']}"
    assert located(hub, tmp_path, *sources) == [COMMITS["main"], COMMITS["v2"], COMMITS["v2"]]


def test_what_the_hub_does_not_have_is_no_outage(hub: str, tmp_path: Path) -> None:
    assert located(hub, tmp_path, "org/none", "org/repo@none") == ["rejected", "rejected"]
    assert located(hub, tmp_path, "org/repo", token="hf_wrong") == ["rejected"]


def test_a_hub_that_is_down_is_unavailable(tmp_path: Path) -> None:
    assert located("http://127.0.0.1:9", tmp_path, "org/repo") == ["service_unavailable"]


def test_revisions_cannot_lead_out_of_the_hubs_cache() -> None:
    for source in ("org/repo", "org/repo@v2", "org/repo@refs/pr/1", "org/re.po@1.0"):
        assert is_hub_id(source)
    for source in ("org/repo@", "org/repo@../x", "org/repo@a/../../x", "org/repo@/x", "org/r@a b"):
        assert not is_hub_id(source)
