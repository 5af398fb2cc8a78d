"""Tests that failed run once more. What passes then is unsteady; what fails twice fails the run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parent
ALWAYS = "def test_always(): pass\n"
FIRST_TIME = """
def test_first_time_{name}(tmp_path_factory):
    from pathlib import Path
    mark = Path("{name}.seen")
    seen = mark.exists()
    mark.touch()
    assert seen, "not yet"
"""
NEVER = "def test_never(): assert 0\n"
IN_TEARDOWN = """
import pytest

@pytest.fixture
def broken():
    yield
    raise RuntimeError("teardown")

def test_torn_down(broken): pass
"""


def run(folder: Path, files: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow\naddopts = -m 'not slow'\n")
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text)
    plugins = ["-p", "outcomes", "-p", "xdist", "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, SUPPORT / "run_again.py", *plugins, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SUPPORT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def unsteady(folder: Path) -> str:
    report = folder / "build/unsteady.txt"
    return report.read_text() if report.exists() else ""


@pytest.mark.parametrize("processes", [[], ["--numprocesses", "2"]], ids=["alone", "parallel"])
def test_a_test_that_passes_the_second_time_is_listed_and_fails_nothing(
    tmp_path: Path, processes: list[str]
) -> None:
    files = {"a": ALWAYS, "b": FIRST_TIME.format(name="b"), "c": FIRST_TIME.format(name="c")}
    done = run(tmp_path, files, *processes)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 tests failed. Running again" in done.stdout
    assert done.stdout.splitlines()[-3].startswith("unsteady")
    for name in ("b", "c"):
        assert f"test_{name}.py::test_first_time_{name}\n" in unsteady(tmp_path)
    assert "not yet" in unsteady(tmp_path)


def test_a_test_that_fails_twice_fails_the_run(tmp_path: Path) -> None:
    done = run(tmp_path, {"a": FIRST_TIME.format(name="a"), "b": NEVER})
    assert done.returncode == 1
    assert "test_never" not in unsteady(tmp_path)
    assert "test_first_time_a" in unsteady(tmp_path)


def test_a_broken_teardown_that_stays_fails_the_run(tmp_path: Path) -> None:
    done = run(tmp_path, {"a": IN_TEARDOWN})
    assert (done.returncode, unsteady(tmp_path)) == (1, "")


@pytest.mark.parametrize("processes", [[], ["--numprocesses", "2"]], ids=["alone", "parallel"])
def test_a_file_that_cannot_be_imported_fails_the_run(tmp_path: Path, processes: list[str]) -> None:
    done = run(tmp_path, {"a": ALWAYS, "b": "import no_such_module\n"}, *processes)
    assert (done.returncode != 0, unsteady(tmp_path)) == (True, "")


def test_only_the_failed_tests_of_the_chosen_ones_run_again(tmp_path: Path) -> None:
    slow = "import pytest\n\n@pytest.mark.slow" + FIRST_TIME.format(name="a")
    done = run(tmp_path, {"a": slow, "b": ALWAYS}, "-m", "slow")
    assert done.returncode == 0
    assert "1 passed" in done.stdout.partition("Running again")[2]


def test_many_failures_are_no_chance_and_do_not_run_again(tmp_path: Path) -> None:
    many = "import pytest\n\n@pytest.mark.parametrize('n', range(21))\ndef test_it(n): assert 0\n"
    done = run(tmp_path, {"a": many})
    assert done.returncode == 1
    assert "Running again" not in done.stdout


def test_passed_and_unselected_tests_keep_the_status_of_pytest(tmp_path: Path) -> None:
    assert run(tmp_path, {"a": ALWAYS}).returncode == 0
    assert run(tmp_path, {}, "-k", "none").returncode == 5
