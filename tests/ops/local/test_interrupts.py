"""Ctrl-C at any moment of a start ends `lorikeet up` without a traceback, and leaves nothing."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from servers import LORIKEET

SIMULATED = ("--engine", "simulated", "--model", "m")
END_S = 30.0
STARTED_S = 0.1
"""Seconds of CPU time after which Python itself has started, and the program's modules load."""
MOMENTS_S = (0.0, 0.4, 0.8, 1.2, 1.6, 2.0, 2.5, 3.0, 4.0)
"""Seconds after that: while modules load, during the checks, while Redis and others start."""


def with_ctrl_c() -> None:
    """Let the process notice Ctrl-C, which background jobs of a shell and their children ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupted(folder: Path, *flags: str, when: Callable[[Path, float], bool]) -> tuple[int, str]:
    """Start `lorikeet up`, press Ctrl-C once `when` is true, and return the status and output."""
    log = folder / "log"
    env = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "TMPDIR": str(folder)}
    words = [str(LORIKEET), "up", "--port", "0", "--data-dir", str(folder / "data"), *flags]
    with log.open("wb") as file:
        process = subprocess.Popen(
            words,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=env,
            process_group=0,
            preexec_fn=with_ctrl_c,
        )
    while psutil.Process(process.pid).cpu_times().user < STARTED_S:
        time.sleep(0.005)
    started_s = time.monotonic()
    try:
        while not when(folder, time.monotonic() - started_s):
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
        children = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        code = process.wait(END_S)
        _, alive = psutil.wait_procs(children, END_S)
        assert alive == []
    finally:
        process.kill()
        process.wait()
    return code, log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("moment_s", MOMENTS_S)
def test_ctrl_c_during_the_start_is_silent(tmp_path: Path, moment_s: float) -> None:
    code, shown = interrupted(tmp_path, *SIMULATED, when=lambda _, passed_s: passed_s >= moment_s)
    assert code in (-signal.SIGINT, 128 + signal.SIGINT, 0)
    assert "Traceback" not in shown
    assert "KeyboardInterrupt" not in shown
    assert "press Ctrl-C again" not in shown, "the output isn't a terminal"
    assert shown.endswith("| Stopped.\n") is (code == 0)


def is_importing(_: Path, __: float) -> bool:
    """Whether the process of the conversion has begun to import modules, which takes seconds."""
    family = psutil.Process().children(recursive=True)
    converters = [each for each in family if "spawn_main" in " ".join(each.cmdline())]
    return any(each.cpu_times().user > 0.1 for each in converters)


def is_converting(folder: Path, _: float) -> bool:
    return bool(list(folder.glob("cache/lorikeet/demo-*/converting-*/*")))


@pytest.mark.demo
@pytest.mark.parametrize(
    "when",
    [
        pytest.param(is_importing, marks=pytest.mark.slow),
        pytest.param(is_converting, marks=pytest.mark.long),
    ],
)
def test_ctrl_c_during_the_conversion_of_the_demo_leaves_no_files(
    tmp_path: Path, when: Callable[[Path, float], bool]
) -> None:
    code, shown = interrupted(tmp_path, when=when)
    assert code == 128 + signal.SIGINT
    assert "Traceback" not in shown
    assert not list(tmp_path.glob("cache/lorikeet/demo-*/*"))
