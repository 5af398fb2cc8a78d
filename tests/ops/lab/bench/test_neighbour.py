"""The busy loop beside a pool: its process, and the session that it runs in."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ops.lab.bench.busy_loop import busy_loop
from ops.lab.bench.frame.measurement_process import MeasurementFailed
from ops.lab.bench.neighbour import is_autogroup_on, loop_cores
from ops.lab.machine import ROOT

CORE = loop_cores()[-1]


@pytest.mark.parametrize("own_session", [False, True])
def test_the_loop_has_lowest_priority_on_its_core_in_its_session(*, own_session: bool) -> None:
    with busy_loop(CORE, own_session=own_session) as loop:
        process = psutil.Process(loop.pid)
        assert process.nice() == 19
        assert process.cpu_affinity() == [CORE]
        assert os.getsid(loop.pid) == (loop.pid if own_session else os.getsid(0))
        assert os.getpgid(loop.pid) != os.getpgid(0)  # Ctrl-C doesn't reach it
        start_s = loop.cpu_s()
        while loop.cpu_s() <= start_s:  # it uses CPU time
            pass
    assert not psutil.pid_exists(loop.pid)


def test_the_loop_ends_with_a_parent_that_is_killed() -> None:
    code = (
        "import time\n"
        "from ops.lab.bench.busy_loop import busy_loop\n"
        f"with busy_loop({CORE}, own_session=True) as loop:\n"
        "    print(loop.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        loop = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    loop.wait(timeout=30)


@pytest.mark.parametrize(
    ("core", "reason"), [(100_000, "didn't start on core 100000"), (CORE, "ended early")]
)
def test_a_loop_that_does_not_run_until_the_end_is_an_error(core: int, reason: str) -> None:
    with pytest.raises(MeasurementFailed, match=reason), busy_loop(core, own_session=False) as loop:
        end(psutil.Process(loop.pid))


def end(process: psutil.Process) -> None:
    process.terminate()
    while process.status() != psutil.STATUS_ZOMBIE:
        pass


def test_autogroup_is_read_from_the_kernels_setting(tmp_path: Path) -> None:
    setting = tmp_path / "sched_autogroup_enabled"
    assert not is_autogroup_on(setting)
    for text, is_on in (("0\n", False), ("1\n", True)):
        setting.write_text(text)
        assert is_autogroup_on(setting) == is_on
