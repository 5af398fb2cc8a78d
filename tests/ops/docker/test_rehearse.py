"""The images, built without Docker by running their Dockerfile's RUN lines in a folder."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from child_processes import child_processes
from servers import wait_for

from ops.docker.rehearse import Rehearsal, context_files, stages

MAX_BYTES = 150_000_000
KEY, METRICS_KEY = "k" * 16, "m" * 16

pytestmark = pytest.mark.timeout(600)  # the build installs packages


@pytest.fixture(scope="module")
def api_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder /opt/lorikeet of the api image."""
    folder = tmp_path_factory.mktemp("image")
    Rehearsal(folder, {}).build("build-api")
    return folder / "opt/lorikeet"


@pytest.mark.slow
def test_the_api_image_is_small_and_has_no_torch(api_image: Path) -> None:
    packages = {p.name.split("-")[0] for p in api_image.glob("lib/python3*/site-packages/*")}
    assert {"fastapi", "api", "shared", "worker", "ops"} <= packages
    assert not packages & {"torch", "transformers", "peft", "safetensors", "numpy", "pip"}
    assert sum(p.lstat().st_size for p in api_image.rglob("*")) < MAX_BYTES


@pytest.fixture
def api(api_image: Path, redis_url: str, pool: str, tmp_path: Path) -> Iterator[str]:
    """Start the api image's command as its container does, and provide its URL."""
    command = stages()["runtime"].last("ENTRYPOINT") + stages()["api"].last("CMD")
    environment = {
        "PATH": f"{api_image}/bin",
        "LORIKEET_REDIS_URL": redis_url,
        "LORIKEET_POOL": pool,
        "LORIKEET_HOST": "0.0.0.0",
        "LORIKEET_PORT": "0",
        "LORIKEET_API_KEYS": KEY,
        "LORIKEET_METRICS_KEY": METRICS_KEY,
    }
    log = tmp_path / "api.log"
    words = [str(api_image / "bin" / command[0]), *command[1:]]
    with log.open("w") as file, child_processes() as start:
        process = start(words, env=environment, cwd=tmp_path, stdout=file, stderr=file)
        wait_for(lambda: "api_listening" in log.read_text(), log.read_text, process)
        (listening,) = [line for line in log.read_text().splitlines() if "api_listening" in line]
        yield json.loads(listening)["url"].replace("0.0.0.0", "127.0.0.1")
        process.terminate()
        assert process.wait(40) == 0, log.read_text()


@pytest.mark.slow
def test_the_api_image_serves(api: str) -> None:
    assert httpx.get(f"{api}/health").json() == {"status": "ok"}
    assert httpx.get(f"{api}/metrics").status_code == 401
    metrics = httpx.get(f"{api}/metrics", headers={"Authorization": f"Bearer {METRICS_KEY}"})
    assert "lorikeet_redis_up 1.0" in metrics.text


@pytest.mark.parametrize("image", ["api", "worker", "worker-vllm"])
def test_images_run_as_an_unprivileged_user(image: str) -> None:
    found = stages()
    steps, stage = [], image
    while stage in found:  # the last base is Python's image
        steps, stage = found[stage].steps + steps, found[stage].base
    users = [rest for word, rest in steps if word == "USER"]
    assert users[0] == users[-1] == "lorikeet"


def test_images_contain_only_the_packages_without_docs_and_laboratory() -> None:
    tops = {path.parts[0] for path in context_files()}
    files = {"pyproject.toml", "setup.py", "README.md", "LICENSE"}
    assert tops == {"api", "ops", "shared", "worker"} | files
    names = {path.as_posix() for path in context_files()}
    assert {"shared/store/lua/jobs/claim.lua", "ops/load/load.py"} <= names
    excluded = ("ops/docs/", "ops/lab/", "ops/bench/")
    assert not [name for name in names if "__pycache__" in name or name.startswith(excluded)]
