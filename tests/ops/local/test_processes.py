"""Output of the processes of `lorikeet up`, the cores that they share, and their precedence."""

import os
import pty
import subprocess
import sys
from io import StringIO
from pathlib import Path

import orjson
import pytest
from rich.console import Console

from ops.lab.machine import this_machine
from ops.local import precedence
from ops.local.cores import usable_cores
from ops.local.process_output import Lines, readable

PROGRAM = """
from pathlib import Path
from ops.local.precedence import take_precedence
take_precedence()
print(Path("/proc/self/autogroup").read_text().split()[-1], flush=True)
"""
COMMAND = [sys.executable, "-c", PROGRAM]
needs_autogroup = pytest.mark.skipif(
    not precedence.AUTOGROUP.exists(), reason="needs Linux's autogroup"
)


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        (
            {
                "process": "worker",
                "event": "adapter_loaded",
                "level": "info",
                "timestamp": "2025-01-02T03:04:05.678Z",
                "version": "a@0123",
            },
            "03:04:05 adapter_loaded version=a@0123",
        ),
        ({"event": "step_failed", "level": "error", "exception": "Traceback"}, "Traceback"),
    ],
)
def test_a_json_log_line_becomes_readable(fields: dict[str, str], shown: str) -> None:
    assert readable(orjson.dumps(fields).decode()).plain.splitlines()[-1] == shown


def test_other_output_stays_as_it_is() -> None:
    assert readable("Segmentation fault [core dumped]").plain == "Segmentation fault [core dumped]"
    assert readable("[1, 2]").plain == "[1, 2]"
    assert readable("\x1b[31mred\x1b[0m").plain == "red"


def test_names_are_padded_so_that_lines_align() -> None:
    console = Console(width=80, record=True, file=StringIO())
    lines = Lines(console, ["api", "worker-1"])
    lines.show("api", "hello")
    lines.show("worker-1", "hello")
    assert console.export_text() == "api      | hello\nworker-1 | hello\n"


def test_only_the_cores_of_this_process_count_or_all_where_the_system_has_no_affinity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3}, raising=False)
    assert usable_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert usable_cores() == this_machine().cores == 7


def may_lower_nice() -> bool:
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
