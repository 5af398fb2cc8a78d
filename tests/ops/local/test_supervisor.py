"""The processes of `lorikeet up`: restarts, ends, output, cores and precedence."""

import asyncio
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from io import StringIO
from pathlib import Path

import orjson
import pytest
from child_processes import child_processes, is_alive
from queue_support import eventually
from rich.console import Console

from ops.lab.machine import this_machine
from ops.local import precedence
from ops.local.cores import usable_cores
from ops.local.failures import MAX_EQUAL
from ops.local.process_output import Lines, readable
from ops.local.supervisor import HEALTHY_AFTER_S, Child, ChildFailed, ChildRefused, Supervisor

DEADLINE_S = 60
SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def show(self, name: str, line: str) -> None:
        self.lines.append((name, line))

    def count(self, text: str) -> int:
        return sum(text in line for _, line in self.lines)


@pytest.fixture
def log() -> Log:
    return Log()


async def yes(_: int) -> bool:
    return True


def child(
    name: str,
    code: str,
    log: Log,
    *,
    stop_timeout_s: float = 10,
    is_to_blame: Callable[[int], Awaitable[bool]] = yes,
    start_s: float = HEALTHY_AFTER_S,
) -> Child:
    return Child(
        name=name,
        argv=[sys.executable, "-S", "-c", code],
        env=dict(os.environ),
        stop_timeout_s=stop_timeout_s,
        show=log.show,
        first_backoff_s=0.001,
        is_to_blame=is_to_blame,
        start_s=start_s,
    )


async def start(supervisor: Supervisor, log: Log, num_children: int = 1) -> asyncio.Task[None]:
    """Run the supervisor in a task, and wait until its children have printed `up`."""
    run = asyncio.create_task(supervisor.run())
    await eventually(lambda: log.count("up") == num_children)
    return run


async def test_the_pause_before_a_restart_doubles(log: Log) -> None:
    code = "import os; print(os.getpid(), flush=True); raise SystemExit(1)"
    supervisor = Supervisor([[child("worker", code, log)]])
    run = asyncio.create_task(supervisor.run())
    await eventually(lambda: log.count("restarts") >= 3)
    supervisor.stop()
    await run
    shown = [line for _, line in log.lines if "restarts" in line]
    assert shown[:3] == [
        f"ended (exit code 1), restarts in {pause} s" for pause in ("0.001", "0.002", "0.004")
    ]


async def test_a_refusal_stops_all_children(log: Log) -> None:
    worker = child("worker", "print('no such model', flush=True); raise SystemExit(2)", log)
    api = child("api", SLEEPER, log)
    with pytest.raises(ChildRefused, match="worker doesn't start"):
        await Supervisor([[api], [worker]]).run()
    assert ("worker", "no such model") in log.lines
    assert_gone(api)


LOGS = """
import time
print('{"timestamp": "%s", "event": "loading"}' % time.time_ns(), flush=True)
"""
FAILS = f"{LOGS}print('OSError: no space', flush=True); raise SystemExit(1)"


@pytest.mark.parametrize(
    ("code", "last"),
    [(FAILS, "OSError: no space$"), (f"{LOGS}raise SystemExit(1)", ".*loading")],
    ids=["a text", "a log line, whose time differs"],
)
async def test_three_equal_failures_end_it_with_their_last_line(
    log: Log, code: str, last: str
) -> None:
    api = child("api", SLEEPER, log)
    with pytest.raises(ChildFailed, match=rf"worker .* 3 times .* status 1\): {last}"):
        await Supervisor([[api], [child("worker", code, log)]]).run()
    assert log.count(last.strip(".*$")) == MAX_EQUAL
    assert_gone(api)


async def test_a_child_that_its_environment_ends_is_restarted_further(log: Log) -> None:
    async def is_to_blame(pid: int) -> bool:
        assert pid == worker.pid
        return log.count("OSError") > 2 * MAX_EQUAL

    worker = child("worker", FAILS, log, is_to_blame=is_to_blame)
    with pytest.raises(ChildFailed):
        await Supervisor([[worker]]).run()
    assert log.count("OSError") == 3 * MAX_EQUAL


async def test_a_child_that_fails_after_its_start_is_restarted_further(log: Log) -> None:
    supervisor = Supervisor([[child("api", FAILS, log, start_s=0)]])
    run = asyncio.create_task(supervisor.run())
    await eventually(lambda: log.count("OSError") > MAX_EQUAL or run.done())
    supervisor.stop()
    await run


async def test_a_child_that_is_killed_again_and_again_is_restarted(log: Log) -> None:
    supervisor = Supervisor([[worker := child("worker", SLEEPER, log)]])
    run = await start(supervisor, log)
    for number in range(2, MAX_EQUAL + 3):
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        await eventually(lambda number=number: log.count("up") == number)  # type: ignore[misc]
    assert log.count("ended (SIGKILL), restarts in 0.001 s") > 0
    supervisor.stop()
    await run


async def test_groups_are_stopped_one_after_another(log: Log) -> None:
    says_bye = (
        "import signal, sys, time; "
        "signal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit(0))); "
        "print('up', flush=True); time.sleep(600)"
    )
    names = ["api", "worker", "control"]
    supervisor = Supervisor([[child(name, says_bye, log)] for name in names])
    run = await start(supervisor, log, num_children=3)
    supervisor.stop()
    await run
    assert [name for name, line in log.lines if line == "bye"] == names


@pytest.mark.parametrize(("stop_timeout_s", "num_stops"), [(0.1, 1), (600, 2)])
async def test_a_child_that_ignores_sigterm_is_killed_in_time_or_by_a_second_stop(
    log: Log, stop_timeout_s: float, num_stops: int
) -> None:
    worker = child("worker", STUBBORN, log, stop_timeout_s=stop_timeout_s)
    supervisor = Supervisor([[worker]])
    run = await start(supervisor, log)
    for _ in range(num_stops):
        supervisor.stop()
    async with asyncio.timeout(DEADLINE_S):
        await run
    assert log.count("is killed") == (num_stops == 1)
    assert_gone(worker)


async def test_a_failing_coroutine_alongside_stops_all_children(log: Log) -> None:
    worker = child("worker", SLEEPER, log)

    async def fails() -> None:
        await eventually(lambda: log.count("up") == 1)
        raise ChildRefused("redis is gone")

    with pytest.raises(ChildRefused, match="redis is gone"):
        await Supervisor([[worker]]).run(fails())
    assert_gone(worker)


async def test_a_line_longer_than_the_buffer_is_shown_in_parts(log: Log) -> None:
    supervisor = Supervisor([[child("worker", f"print('x' * 200_000); {SLEEPER}", log)]])
    run = await start(supervisor, log)
    supervisor.stop()
    await run
    assert sum(line.count("x") for _, line in log.lines) == 200_000


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills orphans")
async def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with child_processes() as start_parent:
        start_parent([sys.executable, "-c", _PARENT, str(pid_file)])
        await eventually(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"))
    pid = int(pid_file.read_text())
    await eventually(lambda: not is_alive(pid))


_PARENT = """
import asyncio, os, sys
from ops.local.supervisor import Child, Supervisor
code = '''
import os, sys, time
print(os.getpid(), file=open(sys.argv[1], "w"), flush=True)
time.sleep(600)
'''
child = Child(name="c", argv=[sys.executable, "-c", code, sys.argv[1]], env=dict(os.environ),
              stop_timeout_s=1, show=lambda *_: None)
asyncio.run(Supervisor([[child]]).run())
"""


def assert_gone(child: Child) -> None:
    assert child.pid is not None
    assert not is_alive(child.pid)


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
