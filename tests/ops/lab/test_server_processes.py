"""Server processes, and the messages when they fail."""

import subprocess
import sys
from pathlib import Path

import pytest

from ops.lab.server_processes import (
    ServerFailed,
    clean_environment,
    process,
    wait_until_serves,
)
from ops.local.ports import free_port


def wait(started: "subprocess.Popen[bytes]", scratch: Path, timeout_s: float) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    wait_until_serves(
        url,
        ready="/health",
        names={"base"},
        started=[started],
        timeout_s=timeout_s,
        scratch=scratch,
    )


def test_the_error_of_a_server_that_ends_has_its_last_output(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no room')"]
    with (
        process("peer", command, tmp_path, clean_environment()) as started,
        pytest.raises(ServerFailed, match="peer: no room"),
    ):
        wait(started, tmp_path, timeout_s=60)


def test_a_server_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import signal; signal.pause()"]
    with (
        process("peer", command, tmp_path, clean_environment()) as started,
        pytest.raises(ServerFailed, match="doesn't become ready"),
    ):
        wait(started, tmp_path, timeout_s=0.1)
    assert started.poll() is not None


def test_measured_servers_use_all_cores_and_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("LORIKEET_MAX_NUM_SEQS", "1")
    monkeypatch.setenv("KEPT", "1")
    environment = clean_environment()
    assert environment["KEPT"] == "1"
    assert not {"OMP_NUM_THREADS", "LORIKEET_MAX_NUM_SEQS"} & set(environment)
