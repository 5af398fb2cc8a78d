"""Nice values of real sessions, with and without a terminal."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from ops.local import precedence
from ops.local.precedence import AUTOGROUP

PROGRAM = """
from pathlib import Path
from ops.local.precedence import take_precedence
take_precedence()
print(Path("/proc/self/autogroup").read_text().split()[-1], flush=True)
"""
COMMAND = [sys.executable, "-c", PROGRAM]

needs_autogroup = pytest.mark.skipif(not AUTOGROUP.exists(), reason="needs Linux's autogroup")


def may_lower_nice() -> bool:
    """Return whether a child of this process may lower its nice value."""
    program = "import os; os.setpriority(os.PRIO_PROCESS, 0, -10)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    return done.returncode == 0


@needs_autogroup
def test_a_session_without_a_terminal_takes_precedence_if_it_is_allowed_to() -> None:
    done = subprocess.run(
        COMMAND, start_new_session=True, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ("-10" if may_lower_nice() else "0")


@needs_autogroup
def test_a_session_with_a_terminal_stays_as_it_is() -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(COMMAND[0], COMMAND)
    with os.fdopen(terminal, "rb") as shown:
        assert shown.readline().strip() == b"0"
    os.waitpid(pid, 0)


def test_a_kernel_without_the_feature_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precedence, "AUTOGROUP", tmp_path / "none" / "autogroup")
    precedence.take_precedence()
