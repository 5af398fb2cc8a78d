"""Adapters of models that read images: names of their layers, and what is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_vision import LATEST, NAMES, save_vision_adapter, tiny_vision_model

from shared.errors import AdapterRejected
from worker.engine_vllm.skeleton import skeleton_modules
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.adapter import LoRAAdapter, read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles


@pytest.fixture(scope="module")
def base() -> BaseModules:
    return skeleton_modules("vision", tiny_vision_model().config)


def read(folder: Path, base: BaseModules) -> LoRAAdapter:
    return read_checkpoint("a", AdapterFiles(folder), base, dtype=torch.float32)


def test_only_the_language_models_linears_are_targets(base: BaseModules) -> None:
    layers = {name.removeprefix(LATEST) for name in base.linears}
    assert {name.split(".")[0] for name in layers} == {"layers"}
    assert len(layers) == 2 * 7
    assert base.all_linear == base.linears.keys()


def test_adapters_are_equal_under_all_names(base: BaseModules, tmp_path: Path) -> None:
    adapters = [
        read(save_vision_adapter(tmp_path / str(i), seed=1, names=names), base)
        for i, names in enumerate(NAMES)
    ]
    assert {adapter.weights_digest for adapter in adapters} == {adapters[0].weights_digest}
    assert all(name.startswith(LATEST) for name in adapters[2].modules)


@pytest.mark.parametrize("names", NAMES)
def test_tensors_outside_the_language_model_are_refused(
    base: BaseModules, tmp_path: Path, names: str
) -> None:
    file = save_vision_adapter(tmp_path, seed=1, names=names) / "adapter_model.safetensors"
    tensors = load_file(file)
    tower = {
        name.replace(names, "model.vision_tower.vision_model.encoder."): tensor.clone()
        for name, tensor in tensors.items()
    }
    save_file({**tensors, **tower}, file)
    with pytest.raises(AdapterRejected, match="vision_tower"):
        read(tmp_path, base)


def test_tensors_of_one_layer_under_two_names_are_refused(
    base: BaseModules, tmp_path: Path
) -> None:
    file = save_vision_adapter(tmp_path, seed=1) / "adapter_model.safetensors"
    tensors = load_file(file)
    twice = {name.replace(LATEST, NAMES[1]): tensor.clone() for name, tensor in tensors.items()}
    save_file({**tensors, **twice}, file)
    with pytest.raises(AdapterRejected, match="belongs to no module"):
        read(tmp_path, base)
