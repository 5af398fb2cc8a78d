import json
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file

from ops.lab.bench.servers.random_adapters import make_adapters


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_tiny_model(tmp_path_factory.mktemp("model"))


def test_ranks_8_and_16_take_turns_and_no_adapter_is_a_no_op(model: Path, tmp_path: Path) -> None:
    folders = make_adapters(model, tmp_path)
    configs = [json.loads((f / "adapter_config.json").read_text()) for f in folders.values()]
    assert list(folders) == [f"a{n}" for n in range(8)]
    assert [config["r"] for config in configs] == [8, 16] * 4
    for folder in folders.values():
        tensors = load_file(folder / "adapter_model.safetensors")
        assert len(tensors) == 2 * 2 * 7  # A and B, layers, modules
        assert all(tensor.any() and tensor.dtype is torch.bfloat16 for tensor in tensors.values())


def test_adapters_are_the_same_every_time(model: Path, tmp_path: Path) -> None:
    first = make_adapters(model, tmp_path / "first")
    second = make_adapters(model, tmp_path / "second")
    for name in first:
        weights = "adapter_model.safetensors"
        assert (first[name] / weights).read_bytes() == (second[name] / weights).read_bytes()
