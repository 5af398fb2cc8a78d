"""Adapters of experts are refused with advice on what to train instead."""

from pathlib import Path

import pytest
import torch
from adapter_folders import change_tensors, read_adapter, set_field
from targets import targeting
from tiny import save_adapter, tiny_model

from shared.errors import AdapterRejected
from worker.lora.base.modules import BaseModules, base_modules

ADVICE = 'train the attention modules: target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]'


@pytest.fixture(scope="module")
def base() -> BaseModules:
    return base_modules(tiny_model("mixtral"))


def refusal(base: BaseModules, folder: Path) -> str:
    with pytest.raises(AdapterRejected) as caught:
        read_adapter(base, folder)
    return str(caught.value)


@pytest.mark.filterwarnings("ignore")  # PEFT's advice on training
def test_all_linear_on_fused_experts(base: BaseModules, tmp_path: Path) -> None:
    folder = save_adapter(tmp_path, "mixtral", r=4, target_modules="all-linear")
    assert "target_parameters" in (message := refusal(base, folder))
    assert ADVICE in message


def test_all_linear_on_experts_that_were_separate_linears(
    base: BaseModules, tmp_path: Path
) -> None:
    folder = save_adapter(tmp_path, "mixtral", r=4, target_modules=["q_proj"])
    name = "base_model.model.model.layers.0.block_sparse_moe.experts.0.w1.lora_A.weight"
    change_tensors(folder, lambda tensors: tensors.update({name: torch.ones(4, 64)}))
    set_field(folder, target_modules=["q_proj", "w1"])
    assert f"{name} belongs to an expert" in (message := refusal(base, folder))
    assert ADVICE in message


def test_a_router(base: BaseModules) -> None:
    with pytest.raises(AdapterRejected) as caught:
        base.targets(targeting(target_modules=["q_proj", "gate"]))
    assert str(caught.value).endswith(f"are supported; {ADVICE}")


def test_other_models_get_no_advice_on_experts() -> None:
    with pytest.raises(AdapterRejected) as caught:
        base_modules(tiny_model()).targets(targeting(target_modules=["norm"]))
    assert "attention" not in str(caught.value)
