"""What is started, and what is said when it can't be."""

import subprocess
import sys
from pathlib import Path

import pytest

from ops.bench.processes import (
    ServerFailed,
    clean_environment,
    free_port,
    process,
    wait_until_serves,
)
from ops.bench.servers import check_vllm
from shared.errors import SettingsError


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


def test_a_server_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no room')"]
    with (
        process("peer", command, tmp_path, clean_environment()) as started,
        pytest.raises(ServerFailed, match="peer: no room"),
    ):
        wait(started, tmp_path, timeout_s=60)


def test_a_server_that_takes_too_long_is_given_up_and_stopped(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import signal; signal.pause()"]
    with (
        process("peer", command, tmp_path, clean_environment()) as started,
        pytest.raises(ServerFailed, match="doesn't get ready"),
    ):
        wait(started, tmp_path, timeout_s=0.1)
    assert started.poll() is not None


def test_what_is_measured_uses_all_cores_and_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("LORIKEET_MAX_NUM_SEQS", "1")
    monkeypatch.setenv("KEPT", "1")
    environment = clean_environment()
    assert environment["KEPT"] == "1"
    assert not {"OMP_NUM_THREADS", "LORIKEET_MAX_NUM_SEQS"} & set(environment)


def test_a_venv_without_vllm_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"bin/vllm; ops/docs/benchmarks.md"):
        check_vllm(tmp_path)
