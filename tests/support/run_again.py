"""Runs pytest, and then the tests that failed once more, alone and in one process.

    python tests/support/run_again.py PYTEST_ARGUMENT...

A test that passes the second time is unsteady: its code or the test has a defect that depends on
time or chance. It is listed at the end, and with its first traceback in build/unsteady.txt. Only
tests that fail twice fail the run.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from outcomes import ONLY_FAILED, RECORD, failures, passes

REPORT = Path("build/unsteady.txt")
MOST = 20
"""If more tests fail, that isn't chance, and they aren't run again."""
_TESTS_FAILED = 1
"""Status of pytest if tests failed. Others mean an interruption, or wrong arguments."""


def main(arguments: list[str]) -> int:
    """Run pytest with these arguments, once or twice, and return the status of the whole."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder, "first"), Path(folder, "second")
        status = _pytest([*arguments, f"{RECORD}={first}"])
        failed = failures(first)
        if status != _TESTS_FAILED or not 0 < len(failed) <= MOST:
            return status
        print(f"\n{_tests(len(failed))} failed. Running again, alone:", flush=True)
        alone = ["--numprocesses", "0"] if "--numprocesses" in arguments else []
        _pytest([*arguments, *alone, f"{ONLY_FAILED}={first}", f"{RECORD}={second}"])
        unsteady = {nodeid: failed[nodeid] for nodeid in failed if nodeid in passes(second)}
    _report(unsteady)
    return _TESTS_FAILED if len(unsteady) < len(failed) else 0


def _pytest(arguments: list[str]) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode


def _report(unsteady: dict[str, str]) -> None:
    if not unsteady:
        return
    REPORT.parent.mkdir(exist_ok=True)
    with REPORT.open("a") as file:
        for nodeid, traceback in unsteady.items():
            file.write(f"{nodeid}\n\n{traceback}\n\n")
    print(f"unsteady (failed, then passed alone; tracebacks in {REPORT}):")
    print(*(f"  {nodeid}" for nodeid in unsteady), sep="\n", flush=True)


def _tests(number: int) -> str:
    return "1 test" if number == 1 else f"{number} tests"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
