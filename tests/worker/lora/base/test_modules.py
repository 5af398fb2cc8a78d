"""The base's modules that adapters may target, compared with PEFT."""

import pytest
import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import _maybe_include_all_linear_layers
from targets import targeting
from tiny import ARCHITECTURES, tiny_model
from torch import nn
from transformers import PretrainedConfig

from shared.errors import AdapterRejected
from worker.lora.base.modules import ModuleShape, base_modules


@pytest.mark.parametrize("model_type", [*ARCHITECTURES, "gpt2", "opt", "qwen3_moe"])
def test_all_linear_stands_for_the_same_modules_as_in_peft(model_type: str) -> None:
    model = tiny_model(model_type)
    config = LoraConfig(target_modules="all-linear")
    assert (
        base_modules(model).all_linear
        == _maybe_include_all_linear_layers(config, model).target_modules
    )


def test_linears_of_the_decoder_are_found_with_their_shapes() -> None:
    base = base_modules(tiny_model("llama"))
    assert base.linears["model.layers.0.self_attn.k_proj"] == ModuleShape(64, 32)
    assert base.linears["model.layers.1.mlp.down_proj"] == ModuleShape(96, 64)
    assert len(base.linears) == 15
    assert base.head == list(base.linears)[-1] == "lm_head"
    assert (base.embedding.name, base.embedding.scale) == ("model.embed_tokens", 1.0)
    assert base.others["model.norm"] == "LlamaRMSNorm"
    assert base.norms["model.norm"] == {"weight": 64}
    assert base.model_type == "llama"


def test_gpt_2_has_conv1d_modules() -> None:
    base = base_modules(tiny_model("gpt2"))
    assert base.linears["transformer.h.0.attn.c_attn"] == ModuleShape(64, 192)
    assert base.conv1d == set(base.linears) - {"lm_head"}


class Experts(nn.Module):
    """A layer whose experts are separate linears, as in older models."""

    def __init__(self) -> None:
        super().__init__()
        self.config = PretrainedConfig()
        layer = nn.Module()
        layer.o = nn.Linear(2, 2)
        layer.experts = nn.ModuleList([nn.Linear(2, 2)])
        self.layers = nn.ModuleList([layer])

    def get_output_embeddings(self) -> None:
        return None

    def get_input_embeddings(self) -> None:
        return None


def test_experts_cannot_be_targeted() -> None:
    base = base_modules(Experts())
    assert set(base.linears) == {"layers.0.o"}
    with pytest.raises(AdapterRejected, match=r"layers\.0\.experts\.0 \(Linear\)"):
        base.targets(targeting(target_modules="all-linear"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"target_modules": ["q_proj", "norm"]}, r"model\.norm \(LlamaRMSNorm\)"),
        ({"target_modules": ["self_attn"]}, r"model\.layers\.0\.self_attn \(LlamaAttention\)"),
        ({"target_modules": ["nothing"]}, "target_modules matches no module"),
        ({"target_modules": []}, "target_modules matches no module"),
        (
            {"target_modules": ["q_proj"], "layers_to_transform": [7]},
            "target_modules matches no module",
        ),
    ],
)
def test_unsupported_targets_are_refused_by_name(config: dict[str, object], message: str) -> None:
    with pytest.raises(AdapterRejected, match=message):
        base_modules(tiny_model("llama")).targets(targeting(**config))


def test_a_model_without_peft_defaults_needs_explicit_targets() -> None:
    torch.manual_seed(0)
    with pytest.raises(AdapterRejected, match="target_modules isn't set"):
        base_modules(Experts()).targets(targeting())
