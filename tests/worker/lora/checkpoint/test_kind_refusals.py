"""Adapters of all kinds that can't be served exactly are refused, naming the tensor or field."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_folders import Tensors, change_tensors, read_adapter, set_field
from kinds import tied_kinds
from lora import wrap
from tiny import roughen, save_adapter, tiny_model
from transformers import PreTrainedModel

from shared.errors import AdapterRejected
from worker.lora.base.modules import BaseModules

P = "base_model.model."
Q0 = f"{P}model.layers.0.self_attn.q_proj"
EMBEDDING, HEAD = f"{P}model.embed_tokens", f"{P}lm_head"


Change = Callable[[Tensors, str], object]


def tied() -> PreTrainedModel:
    return roughen(tiny_model(tie_word_embeddings=True))


@pytest.fixture(scope="module")
def base() -> BaseModules:
    return wrap(roughen(tiny_model())).base


@pytest.fixture(scope="module")
def qwen2() -> BaseModules:
    return wrap(roughen(tiny_model("qwen2"))).base


def refused(base: BaseModules, folder: Path, message: str) -> None:
    with pytest.raises(AdapterRejected, match=message):
        read_adapter(base, folder)


def drop(tensors: Tensors, name: str) -> None:
    del tensors[name]


def shaped(*shape: int) -> Change:
    return lambda tensors, name: tensors.update({name: torch.ones(shape)})


def filled(value: float) -> Change:
    return lambda tensors, name: tensors[name].fill_(value)


Q = {"target_modules": ["q_proj"]}
NORM = Q | {"modules_to_save": ["model.norm"]}
TOKENS = Q | {"trainable_token_indices": [7, 3]}
DORA = Q | {"use_dora": True}
TABLES = {"target_modules": ["embed_tokens", "lm_head"]}
MAGNITUDE = f"{Q0}.lora_magnitude_vector"
DELTA = f"{EMBEDDING}.token_adapter.trainable_tokens_delta"
MISSING, STRAY = "is missing", "belongs to no module"
DIFFERS = "differs from the base model's weight"


@pytest.mark.parametrize(
    ("config", "name", "change", "fault"),
    [
        (DORA, MAGNITUDE, drop, MISSING),
        (DORA, MAGNITUDE, shaped(1, 64), "has shape [1, 64]"),
        (DORA, MAGNITUDE, filled(float("nan")), "holds NaN or Inf"),
        (Q | {"lora_bias": True}, f"{Q0}.lora_B.bias", drop, MISSING),
        (Q, f"{Q0}.base_layer.bias", shaped(64), STRAY),
        (Q, f"{HEAD}.weight", shaped(262, 64), DIFFERS),
        (Q | {"modules_to_save": ["lm_head"]}, f"{HEAD}.weight", shaped(270, 64), "[262, 64]"),
        (NORM, f"{P}model.norm.weight", drop, MISSING),
        (NORM, f"{P}model.norm.weight", shaped(1, 64), "has shape [1, 64]"),
        (TOKENS, DELTA, shaped(3, 64), "has shape [3, 64], expected [2, 64]"),
        (TOKENS, DELTA, drop, MISSING),
        (TABLES, f"{EMBEDDING}.base_layer.weight", filled(0.1), DIFFERS),
        (TABLES, f"{HEAD}.base_layer.weight", filled(0.1), DIFFERS),
        (TABLES, f"{EMBEDDING}.lora_embedding_A", shaped(8, 270), "expected [8, 262]"),
        (TABLES, f"{HEAD}.lora_B.weight", shaped(270, 8), "expected [262, 8]"),
        ({"target_modules": ["lm_head"]}, f"{EMBEDDING}.lora_embedding_A", shaped(8, 262), STRAY),
    ],
)
def test_a_tensor_that_does_not_fit(
    base: BaseModules,
    tmp_path: Path,
    config: dict[str, Any],
    name: str,
    change: Change,
    fault: str,
) -> None:
    folder = save_adapter(tmp_path, base=roughen(tiny_model()), **config)
    assert read_adapter(base, folder).num_bytes
    change_tensors(folder, lambda tensors: change(tensors, name))
    refused(base, folder, f"tensor {re.escape(name)} .*{re.escape(fault)}")


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (DORA, {"lora_bias": True}, "use_dora=True with lora_bias=True isn't supported"),
        (
            DORA,
            {"init_lora_weights": "mica"},
            "use_dora=True with init_lora_weights='mica' isn't supported",
        ),
        (TABLES, {"lora_bias": True}, r"lora_bias=True isn't supported on model\.embed_tokens"),
        (DORA, {"use_dora": "yes"}, "use_dora='yes' isn't supported"),
        (DORA, {"lora_bias": 1, "use_dora": False}, "lora_bias=1 isn't supported"),
        (DORA, {"use_dora": False}, "lora_magnitude_vector belongs to no module"),
        (DORA, {"modules_to_save": ["proj"]}, "modules_to_save and target_modules both match"),
        (
            TABLES,
            {"trainable_token_indices": [1]},
            r"trainable_token_indices and target_modules both match model\.embed_tokens",
        ),
        (
            DORA,
            {"trainable_token_indices": [1], "modules_to_save": ["embed_tokens"]},
            r"trainable_token_indices and modules_to_save both match model\.embed_tokens",
        ),
        (
            DORA,
            {"modules_to_save": ["mlp"]},
            r"modules_to_save matches model\.layers\.0\.mlp \(LlamaMLP\)",
        ),
        (DORA, {"trainable_token_indices": {"norm": [1]}}, "trainable_token_indices='norm' isn't"),
    ],
    ids=str,
)
def test_fields_that_cannot_be_combined(
    base: BaseModules, tmp_path: Path, config: dict[str, Any], fields: dict[str, Any], message: str
) -> None:
    folder = save_adapter(tmp_path, base=roughen(tiny_model()), **config)
    set_field(folder, **fields)
    refused(base, folder, message)


def test_a_bias_whose_width_differs_from_the_bases(qwen2: BaseModules, tmp_path: Path) -> None:
    folder = save_adapter(
        tmp_path, base=roughen(tiny_model("qwen2")), target_modules=["v_proj"], bias="all"
    )
    assert read_adapter(qwen2, folder).side.shifts
    change_tensors(folder, lambda tensors: shaped(32)(tensors, f"{Q0}.bias"))
    refused(qwen2, folder, rf"tensor {Q0}\.bias has shape \[32\], expected \[64\]")


def test_saved_modules_with_all_biases_which_peft_saves_three_times(tmp_path: Path) -> None:
    config = {"target_modules": ["query_key_value"], "modules_to_save": ["dense"], "bias": "all"}
    folder = save_adapter(tmp_path, base=roughen(tiny_model("gpt_neox")), **config)
    base = wrap(roughen(tiny_model("gpt_neox"))).base
    refused(base, folder, r"dense\.(modules_to_save|original_module)\.bias belongs to no module")


def test_a_row_of_length_zero_which_dora_cannot_scale(base: BaseModules, tmp_path: Path) -> None:
    def model() -> PreTrainedModel:
        model = tiny_model()
        model.get_submodule("model.layers.0.self_attn.q_proj").weight.data[3] = 0
        return model

    folder = save_adapter(tmp_path, base=model(), **DORA)
    change_tensors(folder, lambda tensors: tensors[f"{Q0}.lora_B.weight"][3].zero_())
    refused(wrap(model()).base, folder, f"tensor {MAGNITUDE} scales a row of length 0")


@pytest.mark.parametrize("field", ["use_dora", "lora_bias"])
def test_fields_that_need_to_read_a_quantised_weight(
    base: BaseModules, tmp_path: Path, field: str
) -> None:
    config = {"target_modules": ["q_proj"], field: True}
    folder = save_adapter(tmp_path, base=roughen(tiny_model()), **config)
    quantised = replace(base, weights={})
    refused(quantised, folder, rf"{field}=True isn't supported on .*q_proj: .* quantised")


@pytest.mark.parametrize(
    ("kind", "part"), [("a tied head", "lora_A.weight"), ("a saved pair", "weight")]
)
def test_tied_tensors_that_differ(tmp_path: Path, kind: str, part: str) -> None:
    folder = save_adapter(tmp_path, base=tied(), **tied_kinds("llama")[kind])
    base = wrap(tied()).base
    assert read_adapter(base, folder).side.num_bytes
    change_tensors(folder, lambda tensors: tensors[f"{HEAD}.{part}"][0].add_(1))
    refused(base, folder, rf"tensor {HEAD}\.{part} differs from the embedding's")


def test_tied_modules_with_different_tokens(tmp_path: Path) -> None:
    folder = save_adapter(tmp_path, base=tied(), **TOKENS)
    indices = {"embed_tokens": [7, 3], "lm_head": [3]}
    set_field(folder, trainable_token_indices=indices, ensure_weight_tying=True)
    refused(wrap(tied()).base, folder, "trainable_token_indices differ between modules")


def test_tokens_of_a_head_with_a_bias_which_peft_drops(tmp_path: Path) -> None:
    folder = save_adapter(tmp_path, "phi", **TOKENS)
    set_field(folder, trainable_token_indices={"lm_head": [7, 3]})
    message = "trainable_token_indices isn't supported on lm_head, which has a bias"
    refused(wrap(tiny_model("phi")).base, folder, message)
