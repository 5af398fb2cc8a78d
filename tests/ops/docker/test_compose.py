"""docker-compose.yml, and the images, built by their RUN lines without Docker."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from child_processes import child_processes
from servers import wait_for

from api.server import EXIT_S
from ops.commands.flags import default_text
from ops.docker.rehearse import Rehearsal, context_files, stages
from shared.settings import ApiSettings, ControlSettings, PoolSettings, WorkerSettings
from worker.service import HAND_OVER_S

ROOT = Path(__file__).parents[3]
FILES = ["docker-compose.yml", "docker-compose.gpu.yml", "docker-compose.vllm.yml"]
FOR_GPU, FOR_VLLM = FILES[:2], [FILES[0], FILES[2]]
"""Files of a pool with native workers on a GPU, and of one with vLLM."""
SECRETS = {
    "REDIS_PASSWORD",
    "LORIKEET_API_KEYS",
    "ADMIN_KEY",
    "LORIKEET_METRICS_KEY",
    "GRAFANA_PASSWORD",
}
OURS = ("api", "control", "worker")
SETTINGS: dict[str, type[PoolSettings]] = {
    "api": ApiSettings,
    "control": ControlSettings,
    "worker": WorkerSettings,
}
NOT_IN_CONTAINERS = {
    "LORIKEET_API_KEY_FILE",
    "LORIKEET_ALLOW_ANONYMOUS",
    "LORIKEET_REQUIRE_KEYS",
    "LORIKEET_VLLM_PYTHON",
}
"""Containers take keys from LORIKEET_API_KEYS, which is required. vLLM has an image of its own."""
OF_FRONT_ENDS = {"control": {"LORIKEET_IMAGE_PRIVATE_HOSTS", "LORIKEET_MAX_BODY_BYTES"}}
"""Settings of front ends that also hold for the requests of batches."""
FIXED = {
    "LORIKEET_REDIS_URL",
    "LORIKEET_HOST",
    "LORIKEET_PORT",
    "LORIKEET_DEVICE",
    "LORIKEET_ADAPTER_STORE",
}
"""Variables that the files themselves set."""


def read(name: str) -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return parsed


SERVICES: dict[str, dict[str, Any]] = read(FILES[0])["services"]
EXAMPLE = (ROOT / ".env.example").read_text()
EXAMPLES = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project folder in which `init.sh` has written .env."""
    for name in (*FILES, ".env.example", "ops/docker/init.sh", "ops/docker/gpus.sh"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    run_script(tmp_path, "init.sh")
    return tmp_path


def run_script(folder: Path, name: str, *words: str) -> str:
    command = ["sh", f"ops/docker/{name}", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def compose() -> list[str]:
    """Return the command of Compose, as a plugin or a program; empty if it isn't installed."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            words = [*command, "version"]
            if subprocess.run(words, capture_output=True, check=False).returncode == 0:
                return command
    return []


def config(project: Path, files: Sequence[str] = (), **variables: str) -> dict[str, Any]:
    """Return the services as Compose parses them, from `files` or by default from the first."""
    command = compose()
    if not command:
        pytest.skip("`make compose` installs Compose; the other tests read the files as YAML")
    if files:
        variables["COMPOSE_FILE"] = ":".join(files)
    names = SECRETS | set(EXAMPLES)
    environment = {k: v for k, v in os.environ.items() if k not in names}
    done = subprocess.run(
        [*command, "config", "--format", "json"],
        cwd=project,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    services: dict[str, Any] = json.loads(done.stdout)["services"]
    return services


def test_compose_accepts_the_files_after_the_first_command(project: Path) -> None:
    services = config(project)
    assert set(services) == {"redis", "api", "control", "worker", "prometheus", "grafana"}
    assert services["worker"]["environment"]["LORIKEET_MODEL"] == "demo"
    assert services["worker"]["stop_grace_period"] == "45s"
    assert {port["host_ip"] for s in services.values() for port in s.get("ports", ())} == {
        "127.0.0.1"
    }


def test_compose_mounts_the_users_models_and_adapters(project: Path) -> None:
    with (project / ".env").open("a") as env:
        env.write("LORIKEET_MODEL=/models/qwen\nLORIKEET_ADAPTERS=a=/adapters/a b=/adapters/b\n")
        env.write("MODELS_DIR=./my-models\nADAPTERS_DIR=/srv/adapters\nLORIKEET_DRAIN_S=120\n")
        env.write("API_ADDRESS=0.0.0.0:8000\n")
    services = config(project)
    environment = services["worker"]["environment"]
    assert environment["LORIKEET_MODEL"] == "/models/qwen"
    assert environment["LORIKEET_ADAPTERS"] == "a=/adapters/a b=/adapters/b"
    mounts = {v["target"]: v["source"] for v in services["worker"]["volumes"]}
    assert mounts["/models"] == str(project / "my-models")
    assert mounts["/adapters"] == "/srv/adapters"
    assert services["worker"]["stop_grace_period"] == "2m15s"
    assert services["api"]["ports"][0]["published"] == "8000"


def devices_of(service: dict[str, Any]) -> list[dict[str, Any]]:
    devices: list[dict[str, Any]] = service["deploy"]["resources"]["reservations"]["devices"]
    return devices


def test_further_files_give_workers_a_gpu_or_vllm_and_all_gpus(project: Path) -> None:
    worker = config(project, FOR_GPU, GPU="3")["worker"]
    (device,) = devices_of(worker)
    assert (device["device_ids"], device["capabilities"]) == (["3"], ["gpu"])
    assert worker["environment"]["LORIKEET_DEVICE"] == "cuda"
    assert worker["build"]["args"] == {"TORCH_INDEX": ""}
    worker = config(project, FOR_VLLM)["worker"]
    (device,) = devices_of(worker)
    assert (device["count"], device["capabilities"]) == (-1, ["gpu"])  # Compose's number for all
    assert worker["environment"]["LORIKEET_ENGINE"] == "vllm"
    assert worker["build"]["target"] == "worker-vllm"


def test_compose_accepts_the_file_for_several_gpus(project: Path) -> None:
    (project / "docker-compose.gpus.yml").write_text(run_script(project, "gpus.sh", "2"))
    services = config(project, [*FOR_GPU, "docker-compose.gpus.yml"])
    workers = [services["worker"], services["worker-1"]]
    ids = [[device["device_ids"] for device in devices_of(worker)] for worker in workers]
    assert ids == [[["0"]], [["1"]]]
    del workers[0]["deploy"], workers[1]["deploy"]
    assert workers[0] == workers[1]


def test_each_further_gpu_gets_a_worker_like_the_first() -> None:
    first = read(FILES[1])["services"]["worker"]
    services = yaml.safe_load(run_script(ROOT, "gpus.sh", "8"))["services"]
    assert list(services) == [f"worker-{number}" for number in range(1, 8)]
    for number, service in enumerate(services.values(), start=1):
        assert service.pop("extends") == {"file": FILES[0], "service": "worker"}
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device["device_ids"] == [str(number)]
        device["device_ids"] = ["${GPU:-0}"]
        assert service == first


def test_the_gpus_of_the_machine_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: H100'\necho 'GPU 1: H100'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert list(yaml.safe_load(run_script(ROOT, "gpus.sh"))["services"]) == ["worker-1"]


@pytest.mark.parametrize("words", [["1"], ["0"], ["x"], ["-2"]])
def test_one_gpu_needs_no_file(words: list[str]) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        run_script(ROOT, "gpus.sh", *words)


def test_the_first_command_fills_in_secrets_and_overwrites_nothing(project: Path) -> None:
    env = project / ".env"
    found = dict(re.findall(r"^([A-Z_]+)=(.*)$", env.read_text(), re.MULTILINE))
    assert set(found) == SECRETS
    assert len(set(found.values())) == len(SECRETS)
    assert all(re.fullmatch("[0-9a-f]{48}", secret) for secret in found.values())
    assert env.stat().st_mode & 0o077 == 0
    assert re.sub("=[0-9a-f]{48}$", "=", env.read_text(), flags=re.MULTILINE) == EXAMPLE
    before = env.read_text()
    with pytest.raises(subprocess.CalledProcessError):
        run_script(project, "init.sh")
    assert env.read_text() == before


def test_every_variable_is_documented_and_every_documented_one_is_used() -> None:
    text = "".join((ROOT / name).read_text() for name in FILES)
    used = set(re.findall(r"\$\{([A-Z_]+)", text))
    passed_on = {
        k for s in SERVICES.values() for k, v in s.get("environment", {}).items() if v is None
    }
    assert used | passed_on | {"COMPOSE_FILE"} == set(EXAMPLES)


@pytest.mark.parametrize("name", OURS)
def test_every_setting_reaches_its_container(name: str) -> None:
    settings = {f"LORIKEET_{field.upper()}" for field in SETTINGS[name].model_fields}
    given = {k for k in SERVICES[name]["environment"] if k.startswith("LORIKEET_")}
    assert given == settings - NOT_IN_CONTAINERS | OF_FRONT_ENDS.get(name, set())


def test_the_values_shown_are_the_defaults() -> None:
    defaults = {
        f"LORIKEET_{name.upper()}": default_text(field)
        for cls in SETTINGS.values()
        for name, field in cls.model_fields.items()
    }
    shown = {k: v for k, v in EXAMPLES.items() if k in defaults and k not in SECRETS | FIXED}
    shown.pop("LORIKEET_MODEL")  # required, and `demo` in this file
    assert shown == {k: defaults[k] for k in shown}


def test_images_have_a_version_and_lorikeets_have_its_own() -> None:
    services = {**SERVICES, "worker-gpu": read(FILES[1])["services"]["worker"]}
    for name, service in services.items():
        tag = service["image"].rpartition(":")[2]
        assert re.match(r"v?\d+\.\d", tag), name
        if "build" in service:
            assert tag == version("lorikeet-serve"), name


def test_redis_keeps_everything_and_only_lorikeet_reaches_it() -> None:
    redis = SERVICES["redis"]
    words = redis["command"]
    flags = dict(zip(words[1::2], words[2::2], strict=True))
    assert flags["--appendonly"] == "yes"
    assert flags["--appendfsync"] == "${REDIS_APPENDFSYNC:-everysec}"
    assert flags["--maxmemory-policy"] == "noeviction"
    assert flags["--requirepass"].startswith("${REDIS_PASSWORD:?")
    assert "ports" not in redis
    assert redis["networks"] == ["queue"]
    assert read(FILES[0])["networks"]["queue"]["internal"]
    assert {n for n, s in SERVICES.items() if "queue" in s.get("networks", ())} == {"redis", *OURS}


def test_services_start_after_those_they_need_are_healthy() -> None:
    needs = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    healthy = {
        (name, other)
        for name, others in needs.items()
        for other, how in others.items()
        if how["condition"] == "service_healthy"
    }
    assert healthy == {
        *((name, "redis") for name in OURS),
        ("prometheus", "api"),
        ("grafana", "prometheus"),
    }
    assert all("healthcheck" in service for service in SERVICES.values())
    # Compose stops services in the opposite order: answers end before the workers stop.
    assert "worker" in needs["api"]


def test_lorikeets_containers_have_few_privileges() -> None:
    for name in OURS:
        service = SERVICES[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize(("name", "exit_s"), [("worker", HAND_OVER_S), ("api", EXIT_S)])
def test_stopping_leaves_time_to_drain(name: str, exit_s: float) -> None:
    service = SERVICES[name]
    drain = "${LORIKEET_DRAIN_S:-30}"
    assert service["environment"]["LORIKEET_DRAIN_S"] == drain
    rest_ms = int(service["stop_grace_period"].removeprefix(f"{drain}s").removesuffix("ms"))
    assert rest_ms >= 1000 * exit_s + 5000


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
