"""Counting GPUs, with a driver library that is compiled here in place of NVIDIA's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
