"""`make wheel`, and `make setup` on machines without a GPU, with a real pip."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest
import torch
from kernel_sets import EPS
from threaded_server import LocalServer, QuietHandler, running
from tiny_wheels import make_wheel

from ops.lab.bench.gpu.trials import Attention, Heads, LoRA, StoreKV, Trial
from ops.local.ports import free_port
from ops.packaging import cpu_torch
from ops.packaging import wheel as packaging
from ops.packaging.wheel import BuildFailed, build_wheel
from worker.kernels.cpu import build
from worker.kernels.cpu.levels import LEVELS, VARIABLE, cpu_flags, usable_levels
from worker.kernels.cpu.native import NativeKernels
from worker.kernels.reference import ReferenceKernels

CPU = torch.device("cpu")
HEADS = Heads(num_heads=6, num_kv_heads=2, head_dim=64)
TRIALS: list[Trial] = [
    StoreKV("store", HEADS, 33, CPU),
    Attention("decode", HEADS, [(70, 1), (1, 1), (300, 1)], CPU),
    Attention("prefill", HEADS, [(40, 40), (130, 64)], CPU),
    LoRA("lora", num_in=192, outs=[192, 64, 64], num_tokens=9, ranks=[8, 16, 4], device=CPU),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("dist"))


def unpacked(wheel: Path, folder: Path) -> Path:
    """Unpack a wheel into `folder`, and return the folder of its compiled libraries."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder / "worker" / "kernels" / "cpu" / "prebuilt"


@pytest.fixture(scope="module")
def package(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the wheel's compiled libraries."""
    return unpacked(wheel, tmp_path_factory.mktemp("installed"))


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Build a wheel for the best level of this CPU alone, and return the folder of its library."""
    monkeypatch.setattr(packaging, "LEVELS", usable_levels(cpu_flags())[:1])
    return unpacked(build_wheel(tmp_path / "dist"), tmp_path / "installed")


@pytest.mark.long
@pytest.mark.timeout(400)
def test_the_wheel_fits_every_python_and_has_a_library_for_each_level(
    wheel: Path, package: Path
) -> None:
    _, _, python, abi, platform = wheel.stem.split("-")
    assert (python, abi) == ("py3", "none")
    assert platform.startswith("manylinux_2_")
    assert platform.endswith("x86_64")
    assert {path.stem for path in package.iterdir()} == {level.name for level in LEVELS}


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_level_that_this_cpu_runs_computes_as_torch_does(
    package: Path, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # so that nothing is compiled
    monkeypatch.setattr(build, "PREBUILT", package)
    for level in usable_levels(cpu_flags()):
        monkeypatch.setenv(VARIABLE, level.name)
        kernels = NativeKernels(dtype, tmp_path)
        for trial in TRIALS:
            got = trial.run(kernels, trial.inputs(dtype)).double()
            expected = trial.run(ReferenceKernels(), trial.inputs(torch.float64))
            tolerance = EPS[dtype] * float(expected.abs().max())
            torch.testing.assert_close(got, expected, rtol=0, atol=tolerance, msg=level.name)
        weight, x = torch.randn(100, 64, dtype=dtype), torch.randn(5, 64, dtype=dtype)
        got = kernels.linear(x, kernels.pack(weight), None, 100).double()
        expected = x.double() @ weight.double().T
        tolerance = EPS[dtype] * float(expected.abs().max())
        torch.testing.assert_close(got, expected, rtol=0, atol=tolerance, msg=level.name)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_an_installed_wheel_loads_its_library_without_a_compiler(
    own_package: Path, tmp_path: Path
) -> None:
    code = (
        "import torch; from pathlib import Path; from worker.kernels.pick import pick_kernels; "
        "from worker.kernels.cpu.build import PREBUILT; print(PREBUILT); "
        "print(pick_kernels(torch.device('cpu'), torch.bfloat16, Path('cache')).name)"
    )
    environment = {
        **os.environ,
        "PATH": str(tmp_path / "none"),
        "PYTHONPATH": str(own_package.parents[3]),
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [str(own_package), "native"]
    assert not (tmp_path / "cache").exists()


def test_without_a_compiler_the_build_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildFailed, match=r"no C\+\+ compiler .* GCC 12 or later"):
        packaging.compile_levels(tmp_path)


def test_other_platforms_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaging.platform, "machine", lambda: "aarch64")
    with pytest.raises(BuildFailed, match="Linux on x86-64"):
        build_wheel(tmp_path)


SCRIPT = Path(cpu_torch.__file__)
VERSION = cpu_torch.torch_requirement().removeprefix("torch==") + "+cpu"


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


@pytest.mark.slow
@pytest.mark.skipif(cpu_torch.has_gpu(), reason="needs a machine without a GPU")
def test_another_version_of_torch_is_replaced(python: Path, index: str, tmp_path: Path) -> None:
    old = make_wheel(tmp_path, "torch", "2.0", {"torch/__init__.py": b""})
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-index", old], check=True)
    run(python, index)
    assert torch_version(python) == VERSION
