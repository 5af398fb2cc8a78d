"""The GPUs of a machine, and which worker of `lorikeet up` gets which device."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.local.devices import devices_of_workers
from ops.local.gpus import Gpus
from shared.errors import SettingsError

DRIVER = r"""
#include <cstdlib>
#include <cstring>
extern "C" int cuInit(unsigned) {
    const char *seen = std::getenv("CUDA_VISIBLE_DEVICES");
    if (std::getenv("BROKEN")) return std::atoi(std::getenv("BROKEN"));
    return seen && !*seen ? 100 : 0;
}
extern "C" int cuDeviceGetCount(int *number) {
    const char *seen = std::getenv("CUDA_VISIBLE_DEVICES");
    for (*number = seen ? 1 : 8; seen && (seen = std::strchr(seen, ',')); ++seen) ++*number;
    return 0;
}
"""
COUNT = """
import sys
from ops.local.gpus import usable_gpus
from shared.settings import WorkerSettings
gpus = usable_gpus(WorkerSettings(model="m", engine=sys.argv[1], tensor_parallel=4))
print(gpus.number, gpus.per_worker, gpus.problem)
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a driver of a machine with 8 GPUs."""
    folder = tmp_path_factory.mktemp("driver")
    source, library = folder / "driver.cpp", folder / "libcuda.so.1"
    source.write_text(DRIVER)
    subprocess.run(["g++", "-shared", "-fPIC", "-o", library, source], check=True)
    return folder


def count(driver: Path, site: Path, engine: str = "native", **variables: str) -> str:
    """Count with a driver, and with the packages of another folder in front of the others."""
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(
        [sys.executable, "-c", COUNT, engine],
        env={
            **environment,
            "LD_LIBRARY_PATH": str(driver),
            "PYTHONPATH": os.pathsep.join([str(site), str(Path(__file__).parents[3])]),
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_machine_without_a_driver_has_no_gpu(tmp_path: Path) -> None:
    assert count(tmp_path, tmp_path) == "0 1 None"


@pytest.mark.parametrize(
    ("cuda", "engine", "variables", "found"),
    [
        ("'12.8'", "native", {}, "8 1 None"),
        ("'12.8'", "native", {"CUDA_VISIBLE_DEVICES": ""}, "0 1 None"),
        ("'12.8'", "native", {"CUDA_VISIBLE_DEVICES": "GPU-8932f937,GPU-a5cb7f21"}, "2 1 None"),
        ("None", "native", {}, "0 1 torch is installed without CUDA"),
        ("'12.8'", "native", {"BROKEN": "803"}, "0 1 the NVIDIA driver fails: CUDA error 803"),
        ("'12.8'", "native", {"BROKEN": "100"}, "0 1 None"),
        ("None", "vllm", {}, "8 4 None"),  # vLLM may have a torch of its own
        ("'12.8'", "simulated", {}, "0 1 None"),
    ],
)
def test_gpus_count_that_driver_torch_and_engine_can_use_and_torch_is_not_imported(
    driver: Path, tmp_path: Path, cuda: str, engine: str, variables: dict[str, str], found: str
) -> None:
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('torch is imported')")
    (package / "version.py").write_text(f"debug = False\ncuda: Optional[str] = {cuda}\n")
    assert count(driver, tmp_path, engine, **variables) == found


NONE, TWO = Gpus(0), Gpus(2)
PAIRS = Gpus(5, per_worker=2)
ABSENT = Gpus(0, absence="this torch is built for CPUs alone")
BROKEN = Gpus(0, problem="torch is installed without CUDA")


@pytest.mark.parametrize(
    ("devices", "device", "num_workers", "gpus", "expected"),
    [
        (None, "auto", None, NONE, ["auto"]),
        (None, "auto", 3, NONE, ["auto"] * 3),
        (None, "auto", None, BROKEN, ["auto"]),
        (None, "auto", None, TWO, ["cuda:0", "cuda:1"]),
        (None, "auto", 1, TWO, ["cuda:0"]),
        ("all", "auto", None, TWO, ["cuda:0", "cuda:1"]),
        ("cpu", "auto", None, TWO, ["cpu"]),
        ("cpu", "auto", 2, TWO, ["cpu", "cpu"]),
        ("cuda:1", "auto", None, TWO, ["cuda:1"]),
        ("cuda:1,cuda:0", "auto", None, TWO, ["cuda:1", "cuda:0"]),
        ("cuda,cpu", "auto", None, TWO, ["cuda:0", "cpu"]),
        ("cuda:0,cuda:0,cuda:1", "auto", None, TWO, ["cuda:0", "cuda:0", "cuda:1"]),
        ("cuda:0,cuda:0,cuda:1", "auto", 2, TWO, ["cuda:0", "cuda:0"]),
        ("cuda:5", "auto", None, NONE, ["cuda:5"]),
        (None, "cuda:1", None, TWO, ["cuda:1"]),
        (None, "cuda", 1, TWO, ["cuda:0"]),
        (None, "cpu", 2, TWO, ["cpu", "cpu"]),
        (None, "mps", None, NONE, ["mps"]),
        (None, "auto", None, PAIRS, ["cuda:0", "cuda:2"]),
        ("cuda:3,cuda:1", "auto", None, PAIRS, ["cuda:3", "cuda:1"]),
        (None, "auto", None, Gpus(0, per_worker=2), ["auto"]),
    ],
)
def test_each_device_gets_one_worker_unless_flags_say_otherwise(
    devices: str | None, device: str, num_workers: int | None, gpus: Gpus, expected: list[str]
) -> None:
    assert devices_of_workers(devices, device, num_workers, gpus) == expected


@pytest.mark.parametrize(
    ("devices", "device", "num_workers", "gpus", "message"),
    [
        ("all", "cuda:1", None, TWO, "--devices all and --device cuda:1: give one"),
        ("all", "auto", None, NONE, "--devices all: no GPU can be used here; use cpu"),
        ("all", "auto", None, BROKEN, r"\(torch is installed without CUDA\)"),
        ("0,1", "auto", None, TWO, "--devices 0,1: use all, cpu, or a list such as"),
        ("cuda:0,", "auto", None, TWO, "--devices cuda:0,: use all"),
        ("cuda:0,all", "auto", None, TWO, "--devices cuda:0,all: use all"),
        ("cuda:0,cuda:2", "auto", None, TWO, "cuda:2: a worker needs this GPU, but the last one"),
        (None, "cuda:2", None, TWO, "the last one here is cuda:1; CUDA_VISIBLE_DEVICES may"),
        (None, "auto", None, Gpus(1, per_worker=4), "this GPU and the next 3, but .* cuda:0;"),
        ("cuda:4", "auto", None, PAIRS, "cuda:4: a worker needs this GPU and the next 1"),
        (
            None,
            "auto",
            3,
            TWO,
            "--workers 3: there are only 2 devices .* --devices cuda:0,cuda:0,cuda:1$",
        ),
        (None, "cuda:1", 2, TWO, "--devices cuda:1,cuda:1$"),
        (None, "cuda", None, ABSENT, "--device cuda:0: this torch is built for CPUs alone; use"),
    ],
)
def test_devices_that_contradict_or_do_not_exist_are_refused(
    devices: str | None, device: str, num_workers: int | None, gpus: Gpus, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        devices_of_workers(devices, device, num_workers, gpus)
