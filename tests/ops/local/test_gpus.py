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


def torch_with(folder: Path, cuda: str) -> Path:
    """Write a torch that can't be imported, and return the folder to import it from."""
    package = folder / "site" / "torch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('torch is imported')")
    (package / "version.py").write_text(f"debug = False\ncuda: Optional[str] = {cuda}\n")
    return package.parent


def count(
    driver: Path, engine: str = "native", *, site: Path | None = None, **variables: str
) -> str:
    paths = [str(site)] if site else []
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(
        [sys.executable, "-c", COUNT, engine],
        env={
            **environment,
            "LD_LIBRARY_PATH": str(driver),
            "PYTHONPATH": os.pathsep.join([*paths, str(Path(__file__).parents[3])]),
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_machine_without_a_driver_has_no_gpu(tmp_path: Path) -> None:
    assert count(tmp_path) == "0 1 None"


@pytest.mark.parametrize(
    ("visible", "number"),
    [("", 0), ("GPU-8932f937,GPU-a5cb7f21", 2)],
)
def test_the_driver_applies_the_variable_that_hides_gpus(
    driver: Path, tmp_path: Path, visible: str, number: int
) -> None:
    site = torch_with(tmp_path, "'12.8'")
    assert count(driver, site=site, CUDA_VISIBLE_DEVICES=visible) == f"{number} 1 None"


def test_all_gpus_count_without_the_variable_and_torch_is_not_imported(
    driver: Path, tmp_path: Path
) -> None:
    assert count(driver, site=torch_with(tmp_path, "'12.8'")) == "8 1 None"


def test_gpus_that_torch_cannot_use_do_not_count(driver: Path, tmp_path: Path) -> None:
    problem = "torch is installed without CUDA"
    assert count(driver, site=torch_with(tmp_path, "None")) == f"0 1 {problem}"


def test_a_driver_that_fails_is_reported(driver: Path) -> None:
    assert count(driver, BROKEN="803") == "0 1 the NVIDIA driver fails: CUDA error 803"
    assert count(driver, BROKEN="100") == "0 1 None"


def test_vllm_may_have_a_torch_of_its_own_and_use_several_gpus_per_worker(
    driver: Path, tmp_path: Path
) -> None:
    assert count(driver, "vllm", site=torch_with(tmp_path, "None")) == "8 4 None"


def test_a_simulated_engine_needs_no_gpu(driver: Path) -> None:
    assert count(driver, "simulated") == "0 1 None"
