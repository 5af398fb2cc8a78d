"""Tests of the Triton kernels under their interpreter, and of their selection.

Neither needs a GPU. The interpreter runs the kernels on a CPU in float32 and float16. It must be
selected before triton is imported, so those tests run in a separate process:

    TRITON_INTERPRET=1 pytest -k triton tests/worker/kernels/{test_attention,test_lora,triton_*}.py
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from unittest import mock

import pytest
import torch
from structlog.testing import capture_logs

from worker.kernels.pick import pick_kernels

FOLDER = Path(__file__).parent
FILES = ["test_attention.py", "test_lora.py", "triton_engine.py"]


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


CHECK = "worker.kernels.triton.check"
FAILURE = RuntimeError("out of resource: shared memory\nand more lines")


@pytest.mark.parametrize(
    ("patched", "reason"),
    [
        (lambda: mock.patch(f"{CHECK}.check_kernels"), None),
        (lambda: mock.patch(f"{CHECK}.check_kernels", side_effect=FAILURE), "out of resource: .*"),
        (lambda: mock.patch.dict(sys.modules, {CHECK: None}), "import of .*"),
    ],
    ids=["usable", "failing", "not installed"],
)
def test_triton_is_picked_for_a_gpu_or_else_torch_with_a_warning(
    tmp_path: Path, patched: Callable[[], AbstractContextManager[object]], reason: str | None
) -> None:
    with capture_logs() as logs, patched():
        picked = pick_kernels(torch.device("cuda"), torch.bfloat16, tmp_path)
    assert picked.name == ("torch" if reason else "triton")
    events = [("triton_kernels_unavailable", "torch, slower")] if reason else []
    assert [(line["event"], line["instead"]) for line in logs] == events
    assert all(re.fullmatch(reason or "", line["reason"]) for line in logs)
