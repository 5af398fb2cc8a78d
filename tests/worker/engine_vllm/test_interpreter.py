"""A worker without vLLM continues as a Python that has it."""

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-P", "-m", "ops.cli", "worker", "model", "--engine", "vllm"]


def run(*flags: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*COMMAND, *flags], capture_output=True, text=True, check=False)


def test_the_python_of_the_setting_gets_the_same_arguments(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    done = run("--vllm-python", str(python))
    assert done.stdout.split()[:6] == ["-P", "-m", "ops.cli", "worker", "model", "--engine"]


@pytest.mark.parametrize("name", ["missing", sys.executable])
def test_a_python_without_vllm_is_an_error_that_says_what_to_do(name: str) -> None:
    done = run("--vllm-python", name)
    assert done.returncode == 2
    assert "make vllm" in done.stderr
    assert name in done.stderr
    assert "Traceback" not in done.stderr
