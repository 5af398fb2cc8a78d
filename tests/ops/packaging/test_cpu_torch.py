"""`make setup` on machines without a GPU: a real pip, and a local index with a tiny torch."""

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from threaded_server import LocalServer, QuietHandler, running
from tiny_wheels import make_wheel

from ops.local.ports import free_port
from ops.packaging import cpu_torch

SCRIPT = Path(cpu_torch.__file__)
VERSION = "99.0+cpu"


class Folder(QuietHandler, SimpleHTTPRequestHandler):
    """Serves the files of a folder."""


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """Serve a package index that offers torch, and provide its URL."""
    make_wheel(tmp_path / "index" / "torch", "torch", VERSION, {"torch/__init__.py": b""})
    handler = partial(Folder, directory=str(tmp_path / "index"))
    with running(LocalServer(handler)) as server:
        yield server.url


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of a new virtual environment."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder / "bin" / "python"


@pytest.fixture
def python(environment: Path) -> Iterator[Path]:
    """Provide the Python of a virtual environment without torch."""
    yield environment
    if torch_version(environment):
        pip = [environment, "-m", "pip", "uninstall", "--quiet", "--yes", "torch"]
        subprocess.run(pip, check=True)


def run(python: Path, index: str, path: str = "") -> str:
    """Run the program with `path` first on PATH, and return what it prints."""
    environment = {name: v for name, v in os.environ.items() if not name.startswith("PIP_")}
    environment |= {"PATH": f"{path}:/usr/bin:/bin", "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(
        [python, SCRIPT, index], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def torch_version(python: Path) -> str | None:
    code = "from importlib.metadata import version; print(version('torch'))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


@pytest.mark.slow
@pytest.mark.skipif(cpu_torch.has_gpu(), reason="needs a machine without a GPU")
def test_without_a_gpu_torch_comes_from_the_index_for_cpus(python: Path, index: str) -> None:
    assert f"no NVIDIA GPU: torch is installed from {index}" in run(python, index)
    assert torch_version(python) == VERSION
    assert run(python, index) == ""  # it is installed now


@pytest.mark.slow
def test_with_a_gpu_pip_chooses_torch(python: Path, index: str, tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").touch(mode=0o755)
    assert run(python, index, path=str(tmp_path)) == ""
    assert torch_version(python) is None


@pytest.mark.slow
def test_an_index_that_does_not_answer_is_left_out(python: Path) -> None:
    assert run(python, f"http://127.0.0.1:{free_port()}") == ""
    assert torch_version(python) is None


def test_an_index_that_hangs_is_left_out_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_torch, "TIMEOUT_S", 0.5)
    with LocalServer(QuietHandler) as listens_and_never_answers:
        assert not cpu_torch.answers(listens_and_never_answers.url)


def test_the_requirement_is_the_workers() -> None:
    assert cpu_torch.torch_requirement() in cpu_torch.REQUIREMENTS.read_text().splitlines()
