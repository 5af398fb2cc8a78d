"""Tests of the Triton kernels under their interpreter, and of their selection.

Neither needs a GPU. The interpreter runs the kernels on a CPU in float32 and float16. It must be
selected before triton is imported, so those tests run in a separate process:

    TRITON_INTERPRET=1 pytest -k triton tests/worker/kernels/{test_attention,test_lora,triton_*}.py
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from structlog.testing import capture_logs

from worker.kernels.pick import pick_kernels

FOLDER = Path(__file__).parent
FILES = ["test_attention.py", "test_lora.py", "triton_engine.py"]
CUDA = torch.device("cuda")


@pytest.mark.parametrize(
    "selected",
    [
        pytest.param("not slow and not long", marks=pytest.mark.slow, id="quick cases"),
        pytest.param("not long", marks=[pytest.mark.long, pytest.mark.timeout(900)], id="all"),
    ],
)
def test_interpreted_kernels_pass_their_tests(selected: str) -> None:
    # The interpreter uses numpy, which warns if an adapter overflows.
    warnings = [
        f"-Wignore:{what} encountered:RuntimeWarning" for what in ("overflow", "invalid value")
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", selected, "-k", "triton", *warnings]
        + [str(FOLDER / name) for name in FILES],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout.splitlines()[-1]


def test_without_triton_torch_computes_on_a_gpu_and_a_warning_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "worker.kernels.triton.check", None)
    with capture_logs() as logs:
        assert pick_kernels(CUDA, torch.bfloat16, tmp_path).name == "torch"
    assert [line["event"] for line in logs] == ["triton_kernels_unavailable"]
    assert logs[0]["instead"] == "torch, slower"


def test_kernels_that_fail_on_the_gpu_are_not_picked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker.kernels.triton import check

    def fail(*_: object) -> None:
        raise RuntimeError("out of resource: shared memory\nand more lines")

    monkeypatch.setattr(check, "check_kernels", fail)
    with capture_logs() as logs:
        assert pick_kernels(CUDA, torch.bfloat16, tmp_path).name == "torch"
    assert [line["event"] for line in logs] == ["triton_kernels_unavailable"]
    assert logs[0]["reason"] == "out of resource: shared memory"


def test_kernels_that_run_on_the_gpu_are_picked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker.kernels.triton import check

    monkeypatch.setattr(check, "check_kernels", lambda kernels, device, dtype: None)
    with capture_logs() as logs:
        assert pick_kernels(CUDA, torch.bfloat16, tmp_path).name == "triton"
    assert logs == []
