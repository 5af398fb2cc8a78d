"""Adapters can change a module only if it is called once, with one row per token."""

import pytest
from targets import targeting
from tiny import tiny_model
from transformers import PreTrainedModel

from shared.errors import AdapterRejected, ModelRejected
from worker.lora.base.modules import BaseModules
from worker.model.loader import prepare_model

PHIMOE = {"num_local_experts": 4, "num_experts_per_tok": 2}
GEMMA3N = {
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 0,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "activation_sparsity_pattern": [0.0] * 4,
    "head_dim": 16,
    "hidden_size_per_layer_input": 32,
    "vocab_size_per_layer_input": 320,
    "laurel_rank": 16,
}


def base_of(model: PreTrainedModel) -> BaseModules:
    return prepare_model(model, None, name="tiny", digest="0" * 64, source="tiny").base


def test_adapters_cannot_change_modules_after_the_rows_are_selected() -> None:
    base = base_of(tiny_model("modernbert-decoder", sliding_window=8))
    assert base.head == "decoder"
    assert "lm_head.dense" not in base.linears
    assert "lm_head.norm" not in base.norms
    assert {"model.layers.0.attn.q_proj", "model.layers.1.mlp.Wo"} <= base.linears.keys()
    assert {"model.layers.1.attn_norm", "model.final_norm"} <= base.norms.keys()
    message = r"target_modules matches lm_head\.dense \(not called once for each token\)"
    with pytest.raises(AdapterRejected, match=message):
        base.targets(targeting(target_modules=["q_proj", "dense"]))


def test_a_linear_that_returns_several_tensors_cannot_be_changed() -> None:
    base = base_of(tiny_model("phimoe", **PHIMOE))
    assert {"model.layers.0.self_attn.q_proj", "lm_head"} <= base.linears.keys()
    assert base.targets(targeting(target_modules=["o_proj"])) == [
        "model.layers.0.self_attn.o_proj",
        "model.layers.1.self_attn.o_proj",
    ]
    message = r"target_modules matches model\.layers\.0\.mlp\.router \(doesn't return one tensor\)"
    with pytest.raises(AdapterRejected, match=message):
        base.targets(targeting(target_modules=["router"]))


def test_the_refusal_of_a_model_names_at_most_three_of_its_linears() -> None:
    with pytest.raises(ModelRejected) as error:
        base_of(tiny_model("gemma3n_text", **GEMMA3N))
    assert str(error.value) == (
        "--model tiny: Gemma3nForCausalLM doesn't call each linear once per pass, so adapters on "
        "model.layers.0.altup.modality_router, model.layers.1.altup.modality_router, "
        "model.layers.2.altup.modality_router and 1 more would differ from PEFT's; "
        "use --engine vllm"
    )
