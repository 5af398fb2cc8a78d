"""`lorikeet doctor` as users run it."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import LORIKEET
from tiny import save_tiny_model

from ops.local.data_folder import data_folder, locked_folder
from ops.local.remembered_servers import remembered_up
from shared.settings import WorkerSettings

pytestmark = pytest.mark.slow

TIME_LIMIT_S = 100


def doctor(*words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [LORIKEET, "doctor", "--port", "0", *words],
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        env={**os.environ, "COLUMNS": "200", **variables},
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


def test_the_demo_would_start_on_this_machine() -> None:
    done = doctor()
    assert done.returncode == 0, done.stdout
    for part in ("LlamaForCausalLM", "135 million parameters", "pirate", "KV cache", "would start"):
        assert part in done.stdout


def test_an_unservable_base_is_refused_with_its_reason_as_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "phi4_multimodal"}')
    done = doctor(str(tmp_path), "--json")
    assert done.returncode == 1
    found: dict[str, Any] = json.loads(done.stdout)
    assert not found["starts"]
    [missing] = found["missing"]
    assert "multimodal models aren't served" in missing["problem"]
    assert found["facts"]["fit"] is None


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    done = doctor(
        str(save_tiny_model(tmp_path / "tiny")),
        *("--adapters", "lost=/no/adapter", "gone=/no/other"),
        *("--device", "cuda", "--redis-url", "redis://127.0.0.1:1/0", "--retain-s", "0"),
        XDG_CACHE_HOME="/dev/null/cache",
    )
    assert done.returncode == 1
    for part in (
        "/dev/null is a file",
        "--device cuda:0: ",
        "no Redis at redis://127.0.0.1:1/0",
        "--retain-s",
        "/no/adapter",
        "/no/other",
        "6 problems",
    ):
        assert part in done.stdout


def test_what_up_refuses_of_folders_and_names_is_refused(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "tiny")
    words = [str(model), "--adapters", f"tiny={tmp_path}", "--adapter-root", "/no/root"]
    worker, data = WorkerSettings(model=str(model)), Path("~/data")
    home = {"HOME": str(tmp_path), "LORIKEET_API_KYES": "admin:0123456789abcdef"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path))
        folder = data_folder(data, worker, model)
    assert folder is not None
    with locked_folder(folder):
        done = doctor(*words, "--data-dir", str(data), **home)
    assert done.returncode == 1
    for part in (
        "did you mean LORIKEET_API_KEYS?",
        "this is the base model's name",
        "--adapter-root: '/no/root' isn't a folder",
        f"--data-dir: another `lorikeet up` (process {os.getpid()}) uses {folder}",
        "4 problems",
    ):
        assert part in " ".join(done.stdout.split())


def test_a_running_server_of_this_user_is_named(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        with remembered_up("http://127.0.0.1:8123", None):
            done = doctor(XDG_CONFIG_HOME=str(tmp_path))
    hint = "`lorikeet up` already runs, at http://127.0.0.1:8123"
    assert hint in " ".join(done.stdout.split())
    assert "! note: `lorikeet status` shows the running server.\n" in done.stdout


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Let this process have the port, the data folder and the file of a simulated `lorikeet up`.

    Yield the port, and the variables for the folders of configuration and data.
    """
    variables = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_DATA_HOME": str(tmp_path)}
    worker = WorkerSettings(engine="simulated", model="simulated")
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        port, folder = server.getsockname()[1], data_folder(None, worker, None)
        assert folder is not None
        with locked_folder(folder), remembered_up(f"http://127.0.0.1:{port}", None):
            yield port, variables


def test_the_port_and_the_folder_of_this_users_running_server_are_no_problems(
    running: tuple[int, dict[str, str]],
) -> None:
    port, variables = running
    words = ["simulated", "--engine", "simulated", "--port", str(port)]
    done = doctor(*words, **variables)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith(f"A server of yours runs at http://127.0.0.1:{port}: its port ")
    assert "would start once the running server has stopped." in done.stdout
    assert not {"✗", "!"} & set(done.stdout)
    found = json.loads(doctor(*words, "--json", **variables).stdout)
    assert (found["starts"], found["facts"]["running"]) == (True, f"http://127.0.0.1:{port}")
    done = doctor(*words, **variables, XDG_CACHE_HOME="/dev/null/cache")
    assert done.returncode == 1
    assert "1 problem, see ✗" in done.stdout


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--pool", "other"], "--port: can't listen on 127.0.0.1:"),
        (["--port", "0"], "--data-dir: another `lorikeet up`"),
    ],
)
def test_a_second_server_needs_a_port_and_a_folder_of_its_own(
    running: tuple[int, dict[str, str]], words: list[str], part: str
) -> None:
    port, variables = running
    done = doctor("simulated", "--engine", "simulated", "--port", str(port), *words, **variables)
    assert done.returncode == 1
    assert part in done.stdout
    assert "1 problem, see ✗" in done.stdout


def test_paths_are_not_divided_in_a_narrow_terminal(tmp_path: Path) -> None:
    folder = tmp_path / "-".join(["long"] * 20)
    done = doctor(*("simulated", "--engine", "simulated", "--data-dir", str(folder)), COLUMNS="80")
    assert f"{folder}," in done.stdout


@pytest.mark.parametrize("package", ["torch", "huggingface_hub"])
def test_without_a_package_the_report_says_how_to_install_it(package: str, tmp_path: Path) -> None:
    # A folder in front of the installed packages, whose finder hides the package.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util, sys\n"
        "from importlib.machinery import PathFinder\n"
        "class Hidden(PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {package!r}:\n"
        "            return None\n"
        "        return PathFinder.find_spec(name, path, target)\n"
        "sys.meta_path[:] = [Hidden if f is PathFinder else f for f in sys.meta_path]\n"
    )
    done = doctor(PYTHONPATH=str(tmp_path))
    assert done.returncode == 1, done.stdout
    assert package in done.stdout
    assert "pip install lorikeet-serve" in done.stdout
