"""A short run of mutated adapters against a pool."""

import subprocess
import sys

import pytest


@pytest.mark.demo
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_short_run_finds_no_fault() -> None:
    command = [sys.executable, "-m", "ops.hostile.adapters", "--quick"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=880)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "accepted adapters answered" in run.stdout
