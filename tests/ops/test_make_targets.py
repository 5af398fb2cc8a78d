"""`make test`, `make test-all` and CI: what they run, and what they report as left out."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ops.lab.chaos.faults.kinds import chosen_kinds

ROOT = Path(__file__).parents[2]
SUPPORT = ROOT / "tests" / "support"
TESTS = """
import pytest

def test_quick(): pass

@pytest.mark.slow
def test_one_slow(): pass

@pytest.mark.slow
def test_another_slow(): pass

@pytest.mark.long
def test_long(): pass
"""
BOTH = "left out tests: 2 slow (make test-all), 1 long (make test-long)"
CONFIG = """[pytest]
markers =
    slow
    long
"""


def pytest_commands(*targets: str) -> list[str]:
    command = ["make", "--dry-run", *targets]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [line for line in shown.splitlines() if "run_again.py" in line]


def test_both_targets_in_one_invocation_run_nothing_twice() -> None:
    quick, slow = pytest_commands("test", "test-all")
    assert "-m" not in quick.split()
    assert '-m "slow and not long"' in slow


def test_ci_makes_each_target_of_the_tests_once() -> None:
    made = re.findall(r"^part \S+ make (.*)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    words = " ".join(made).split()
    assert [word for word in words if word.startswith("test")] == ["test", "test-slow", "test-vllm"]


def test_ci_injects_only_faults_that_exist() -> None:
    script = (ROOT / ".ci/run").read_text()
    assert "make chaos" in script
    (names,) = re.findall(r"^FAULTS=(\S+)$", script, re.MULTILINE)
    assert chosen_kinds(names) == tuple(names.split(","))


@pytest.mark.parametrize(
    ("expression", "left_out", "processes"),
    [
        ("not slow and not long", BOTH, ["--numprocesses", "2"]),
        ("slow", "left out tests: 1 long (make test-long)", []),
        ("", None, []),
    ],
)
def test_a_run_reports_the_slow_and_long_tests_that_it_left_out(
    tmp_path: Path, expression: str, left_out: str | None, processes: list[str]
) -> None:
    (tmp_path / "pytest.ini").write_text(CONFIG)
    (tmp_path / "test_it.py").write_text(TESTS)
    plugins = ["-p", "left_out", "-p", "xdist", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *processes, "-m", expression],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SUPPORT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("left out")]
    assert lines == ([left_out] if left_out else [])
