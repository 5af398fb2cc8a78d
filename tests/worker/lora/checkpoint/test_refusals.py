"""Adapters that can't be served exactly are refused, naming the field, tensor or file.

`tests/support/models/bad_adapters.py` has over a hundred others.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_folders import change_tensors, read_adapter, set_field
from peft import LoraConfig
from tiny import save_adapter, tiny_model

from shared.errors import AdapterRejected
from worker.lora.base.modules import BaseModules, base_modules
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.lora.checkpoint.config import _READ, _SUPPORTED_VALUES, _WITHOUT_EFFECT
from worker.lora.checkpoint.unsupported_config import REFUSAL_REASONS

B = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(
        tmp_path_factory.mktemp("good"), r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]
    )


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "a"))


def refused(base: BaseModules, folder: Path, message: str, **kwargs: Any) -> None:
    with pytest.raises(AdapterRejected, match=message) as caught:
        read_adapter(base, folder, **kwargs)
    assert str(folder) in str(caught.value)


def test_each_field_of_pefts_configuration_is_listed() -> None:
    """Fields of newer PEFT versions are refused when they are set, with a generic reason."""
    known = _READ | _WITHOUT_EFFECT | _SUPPORTED_VALUES.keys() | REFUSAL_REASONS.keys()
    assert {field.name for field in dataclasses.fields(LoraConfig)} == known


@pytest.mark.parametrize(
    "fields",
    [
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}},
        {"init_lora_weights": False},
        {"task_type": None, "auto_mapping": {"base_model_class": "LlamaForCausalLM"}},
        {"lora_dropout": 0.1, "inference_mode": False, "revision": "main"},
        {"runtime_config": {"ephemeral_gpu_offload": True}},
        {"ensure_weight_tying": True},  # the model ties nothing
        {"bias": "all"},  # the model has none
        {"modules_to_save": None, "use_dora": False, "a_field_from_the_future": None},
    ],
    ids=str,
)
def test_a_config_field_without_effect_on_the_answers_is_accepted(
    base: BaseModules, folder: Path, fields: dict[str, object]
) -> None:
    set_field(folder, **fields)
    assert len(read_adapter(base, folder).modules) == 4


def test_layers_to_transform_with_a_regex_is_refused_as_by_peft(
    base: BaseModules, folder: Path
) -> None:
    set_field(folder, target_modules=".*q_proj", layers_to_transform=[0])
    refused(base, folder, "`layers_to_transform` cannot be used when `target_modules` is a str")


def test_weights_that_overflow_the_pools_dtype(base: BaseModules, folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors[B].fill_(60_000.0))
    assert read_adapter(base, folder).modules
    refused(base, folder, f"tensor {B} overflows torch.float16", dtype=torch.float16)


def test_the_error_for_a_truncated_file_has_both_sizes(base: BaseModules, folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    refused(base, folder, rf"safetensors is truncated: it has {len(content) - 100} bytes, its he")


def test_the_error_for_a_pickled_adapter_says_how_to_convert_it(
    base: BaseModules, folder: Path
) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    refused(base, folder, r"safetensors is missing.*adapter_model\.bin.*convert it")


@pytest.mark.parametrize("source", ["/no/such/folder", "no-such-folder", "a/b/c", "../a", ""])
def test_a_source_that_is_neither_a_folder_nor_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)  # no other folder's neighbours count
    with pytest.raises(AdapterRejected, match="is neither a folder nor a hub id"):
        AdapterFiles.find(source)


@pytest.mark.parametrize("name", ["../a", "a..b", "a@1", "", "a b"])
def test_an_invalid_adapter_name(base: BaseModules, folder: Path, name: str) -> None:
    with pytest.raises(AdapterRejected, match="bad adapter name"):
        read_adapter(base, folder, name)


def test_gpt_2s_transposed_weights_need_fan_in_fan_out(tmp_path: Path) -> None:
    folder = save_adapter(
        tmp_path / "a", "gpt2", r=2, target_modules=["c_attn"], fan_in_fan_out=True
    )
    base = base_modules(tiny_model("gpt2"))
    assert len(read_adapter(base, folder).modules) == 2
    set_field(folder, fan_in_fan_out=False)
    refused(base, folder, "fan_in_fan_out=False doesn't fit")
