"""What is measured: another checkout, peers of the user, random adapters."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file

from ops.lab.bench.frame.measurement_process import MeasurementFailed
from ops.lab.bench.servers.checkouts import MEASURED, benchmarks_of
from ops.lab.bench.servers.llama_cpp import check_llama_cpp, run_program
from ops.lab.bench.servers.model_servers import check_vllm
from ops.lab.bench.servers.random_adapters import make_adapters
from shared.errors import SettingsError

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
