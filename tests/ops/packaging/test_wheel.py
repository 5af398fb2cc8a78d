"""`make wheel`: one wheel for every Python, with compiled kernels that compute as g++'s do."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from kernel_sets import EPS

from ops.lab.bench.gpu.trials import Attention, Heads, LoRA, StoreKV, Trial
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


@pytest.fixture(scope="module")
def package(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the wheel's compiled libraries, unpacked."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder / "worker" / "kernels" / "cpu" / "prebuilt"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_wheel_fits_every_python_and_has_a_library_for_each_level(
    wheel: Path, package: Path
) -> None:
    _, _, python, abi, platform = wheel.stem.split("-")
    assert (python, abi) == ("py3", "none")
    assert platform.startswith("manylinux_2_")
    assert platform.endswith("x86_64")
    assert {path.stem for path in package.iterdir()} == {level.name for level in LEVELS}


@pytest.mark.slow
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
    package: Path, tmp_path: Path
) -> None:
    code = (
        "import torch; from pathlib import Path; from worker.kernels.pick import pick_kernels; "
        "from worker.kernels.cpu.build import PREBUILT; print(PREBUILT); "
        "print(pick_kernels(torch.device('cpu'), torch.bfloat16, Path('cache')).name)"
    )
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(package.parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [str(package), "native"]
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
