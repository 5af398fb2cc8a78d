"""The size of a base model follows from its configuration as the loaded model's does."""

from pathlib import Path

import pytest
import torch
from kernel_sets import linear_kernels
from tiny import save_adapter, save_tiny_model

from ops.doctor.model_shape import demo_shape, served_shape
from worker.model.kv_cache import KVShape
from worker.model.loader import load_model


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "mixtral"])
def test_sizes_equal_those_of_the_loaded_model(model_type: str, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, model_type)
    shape = served_shape(str(folder), folder, torch.float32)
    loaded = load_model(str(folder), dtype="float32", device="cpu")
    assert shape.kv_shapes == loaded.kv_shapes
    assert shape.max_model_len == loaded.max_model_len
    padding = loaded.weight_bytes - shape.weight_bytes  # of packed weights, to whole vectors
    assert 0 <= padding < 0.2 * shape.weight_bytes


@pytest.mark.parametrize("is_tied", [False, True])
def test_quantised_linears_take_as_much_memory_as_in_the_loaded_model(
    is_tied: bool, tmp_path: Path
) -> None:
    linear_kernels(torch.bfloat16)
    sizes = {"hidden_size": 192, "intermediate_size": 480, "vocab_size": 480}
    folder = save_tiny_model(tmp_path, tie_word_embeddings=is_tied, **sizes)
    shape = served_shape(str(folder), folder, torch.bfloat16, "int8")
    loaded = load_model(str(folder), device="cpu", quantize="int8")
    assert 0 <= loaded.weight_bytes - shape.weight_bytes < 0.02 * shape.weight_bytes


def test_the_size_of_an_adapter_on_all_linears_equals_that_of_peft(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", r=16, target_modules="all-linear")
    num_bytes = (adapter / "adapter_model.safetensors").stat().st_size
    shape = served_shape(str(folder), folder, torch.float32)
    header_bytes = 8192
    assert 0 <= num_bytes - shape.adapter_bytes(16) <= header_bytes


def test_the_demo_has_a_size_before_it_is_converted() -> None:
    shape = demo_shape(torch.bfloat16)
    assert shape.num_parameters == 134_515_008
    assert shape.kv_shapes == [KVShape(3, 64, 64)] * 30
