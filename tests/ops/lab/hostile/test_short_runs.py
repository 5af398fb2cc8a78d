"""Short runs of mutated adapters and of generated requests against a pool."""

import subprocess
import sys

import pytest


@pytest.mark.demo
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("module", "finding"),
    [("adapters", "accepted adapters answered"), ("requests", "slowest request")],
)
def test_a_short_run_finds_no_fault(module: str, finding: str) -> None:
    command = [sys.executable, "-m", f"ops.lab.hostile.{module}", "--quick"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=880)
    assert run.returncode == 0, run.stdout + run.stderr
    assert finding in run.stdout
