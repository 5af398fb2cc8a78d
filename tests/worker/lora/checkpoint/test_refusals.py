"""Adapters of all kinds that can't be served exactly are refused, naming field, tensor or file.

`tests/support/models/bad_adapters.py` has over a hundred others.
"""

import dataclasses
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_folders import Tensors, change_tensors, read_adapter, set_field
from kinds import tied_kinds
from lora import wrap
from peft import LoraConfig
from targets import targeting
from tiny import roughen, save_adapter, tiny_model
from transformers import PreTrainedModel

from shared.errors import AdapterRejected
from shared.protocol.capabilities import AdapterKind
from worker.lora.base.modules import BaseModules, base_modules
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.lora.checkpoint.config import _READ, _SUPPORTED_VALUES, _WITHOUT_EFFECT
from worker.lora.checkpoint.unsupported_config import REFUSAL_REASONS

Q_PROJ_B = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(
        tmp_path_factory.mktemp("good"), r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]
    )


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "a"))


def refused(base: BaseModules, folder: Path, message: str, **options: Any) -> str:
    """Check that the adapter in `folder` is refused, and return the whole message."""
    with pytest.raises(AdapterRejected, match=message) as caught:
        read_adapter(base, folder, **options)
    assert str(folder) in str(caught.value)
    return str(caught.value)


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


def test_weights_that_overflow_the_pools_dtype(base: BaseModules, folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors[Q_PROJ_B].fill_(60_000.0))
    assert read_adapter(base, folder).modules
    refused(base, folder, f"tensor {Q_PROJ_B} overflows torch.float16", dtype=torch.float16)


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
    config = {"r": 2, "target_modules": ["c_attn"], "fan_in_fan_out": True}
    folder = save_adapter(tmp_path / "a", "gpt2", **config)
    base = base_modules(tiny_model("gpt2"))
    assert len(read_adapter(base, folder).modules) == 2
    set_field(folder, fan_in_fan_out=False)
    refused(base, folder, "fan_in_fan_out=False doesn't fit")


@pytest.mark.filterwarnings("ignore")  # PEFT's advice on training
def test_experts_of_an_older_peft_are_refused_if_their_matrices_may_be_swapped(
    tmp_path: Path,
) -> None:
    model = tiny_model("mixtral", intermediate_size=32)  # gate and up together are square
    fields = {"target_modules": [], "target_parameters": ["mlp.experts.gate_up_proj"]}
    folder = save_adapter(tmp_path / "a", base=model, r=4, **fields)
    base = base_modules(tiny_model("mixtral", intermediate_size=32))
    assert len(read_adapter(base, folder).modules) == 2 * 4
    for version in ("0.19.1", "0.18.0", None, "9" * 5000 + ".1"):
        set_field(folder, peft_version=version)
        refused(base, folder, "A and B of .*gate_up_proj may be swapped, as releases of PEFT")


ADVICE = 'train the attention modules: target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]'


@pytest.mark.filterwarnings("ignore")  # PEFT's advice on training
def test_experts_of_other_names_are_refused_with_advice_and_other_modules_without(
    tmp_path: Path,
) -> None:
    mixtral = base_modules(tiny_model("mixtral"))
    folder = save_adapter(tmp_path / "fused", "mixtral", r=4, target_modules="all-linear")
    set_field(folder, target_parameters=["gate_up_proj", "q_proj.weight"])
    refused(mixtral, folder, r"target_parameters=\['q_proj.weight'\] isn't supported")
    folder = save_adapter(tmp_path / "separate", "mixtral", r=4, target_modules=["q_proj"])
    name = "base_model.model.model.layers.0.block_sparse_moe.experts.0.w1.lora_A.weight"
    change_tensors(folder, lambda tensors: tensors.update({name: torch.ones(4, 64)}))
    set_field(folder, target_modules=["q_proj", "w1"])
    assert ADVICE in refused(mixtral, folder, f"{name} belongs to an expert")
    with pytest.raises(AdapterRejected) as caught:
        mixtral.targets(targeting(target_modules=["q_proj", "gate"]))
    assert str(caught.value).endswith(f"are supported; {ADVICE}")
    with pytest.raises(AdapterRejected) as caught:
        base_modules(tiny_model()).targets(targeting(target_modules=["norm"]))
    assert "attention" not in str(caught.value)


P = "base_model.model."
Q0 = f"{P}model.layers.0.self_attn.q_proj"
EMBEDDING, HEAD = f"{P}model.embed_tokens", f"{P}lm_head"


Change = Callable[[Tensors, str], object]


def tied() -> PreTrainedModel:
    return roughen(tiny_model(tie_word_embeddings=True))


@pytest.fixture(scope="module")
def rough() -> BaseModules:
    return wrap(roughen(tiny_model())).base


@pytest.fixture(scope="module")
def qwen2() -> BaseModules:
    return wrap(roughen(tiny_model("qwen2"))).base


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
    rough: BaseModules,
    tmp_path: Path,
    config: dict[str, Any],
    name: str,
    change: Change,
    fault: str,
) -> None:
    folder = save_adapter(tmp_path, base=roughen(tiny_model()), **config)
    assert read_adapter(rough, folder).num_bytes
    change_tensors(folder, lambda tensors: change(tensors, name))
    refused(rough, folder, f"tensor {re.escape(name)} .*{re.escape(fault)}")


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
        (
            Q,
            {"target_modules": ".*q_proj", "layers_to_transform": [0]},
            "`layers_to_transform` cannot be used when `target_modules` is a str",
        ),
    ],
    ids=str,
)
def test_fields_that_cannot_be_combined(
    rough: BaseModules, tmp_path: Path, config: dict[str, Any], fields: dict[str, Any], message: str
) -> None:
    folder = save_adapter(tmp_path, base=roughen(tiny_model()), **config)
    set_field(folder, **fields)
    refused(rough, folder, message)


def test_a_bias_whose_width_differs_from_the_bases(qwen2: BaseModules, tmp_path: Path) -> None:
    folder = save_adapter(
        tmp_path, base=roughen(tiny_model("qwen2")), target_modules=["v_proj"], bias="all"
    )
    assert read_adapter(qwen2, folder).side.shifts
    change_tensors(folder, lambda tensors: shaped(32)(tensors, f"{Q0}.bias"))
    refused(qwen2, folder, rf"tensor {Q0}\.bias has shape \[32\], expected \[64\]")


def test_what_peft_saves_three_times_or_drops_and_tied_modules_with_different_tokens(
    tmp_path: Path,
) -> None:
    config = {"target_modules": ["query_key_value"], "modules_to_save": ["dense"], "bias": "all"}
    neox = roughen(tiny_model("gpt_neox"))
    folder = save_adapter(tmp_path / "neox", base=roughen(tiny_model("gpt_neox")), **config)
    message = r"dense\.(modules_to_save|original_module)\.bias belongs to no module"
    refused(wrap(neox).base, folder, message)
    folder = save_adapter(tmp_path / "phi", "phi", **TOKENS)
    set_field(folder, trainable_token_indices={"lm_head": [7, 3]})
    message = "trainable_token_indices isn't supported on lm_head, which has a bias"
    refused(wrap(tiny_model("phi")).base, folder, message)
    folder = save_adapter(tmp_path / "tied", base=tied(), **TOKENS)
    indices = {"embed_tokens": [7, 3], "lm_head": [3]}
    set_field(folder, trainable_token_indices=indices, ensure_weight_tying=True)
    refused(wrap(tied()).base, folder, "trainable_token_indices differ between modules")


def test_a_row_of_length_zero_which_dora_cannot_scale(rough: BaseModules, tmp_path: Path) -> None:
    def model() -> PreTrainedModel:
        model = tiny_model()
        model.get_submodule("model.layers.0.self_attn.q_proj").weight.data[3] = 0
        return model

    folder = save_adapter(tmp_path, base=model(), **DORA)
    change_tensors(folder, lambda tensors: tensors[f"{Q0}.lora_B.weight"][3].zero_())
    refused(wrap(model()).base, folder, f"tensor {MAGNITUDE} scales a row of length 0")


@pytest.mark.parametrize("field", ["use_dora", "lora_bias"])
def test_fields_that_need_to_read_a_quantised_weight(
    rough: BaseModules, tmp_path: Path, field: str
) -> None:
    config = {"target_modules": ["q_proj"], field: True}
    folder = save_adapter(tmp_path, base=roughen(tiny_model()), **config)
    quantised = replace(rough, weights={})
    refused(quantised, folder, rf"{field}=True isn't supported on .*q_proj: .* quantised")


@pytest.mark.parametrize(
    ("kind", "part"), [("a tied head", "lora_A.weight"), ("a saved pair", "weight")]
)
def test_tied_tensors_that_differ(tmp_path: Path, kind: str, part: str) -> None:
    folder = save_adapter(tmp_path, base=tied(), **tied_kinds("llama")[kind])
    rough = wrap(tied()).base
    assert read_adapter(rough, folder).side.num_bytes
    change_tensors(folder, lambda tensors: tensors[f"{HEAD}.{part}"][0].add_(1))
    refused(rough, folder, rf"tensor {HEAD}\.{part} differs from the embedding's")


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({**Q, "use_rslora": True, "alpha_pattern": {"q_proj": 3}}, set()),
        ({**Q, "use_dora": True}, {AdapterKind.DORA}),
        ({**Q, "lora_bias": True}, {AdapterKind.BIAS}),
        ({**Q, "bias": "all"}, {AdapterKind.BIAS}),
        ({**Q, "modules_to_save": ["model.norm"]}, {AdapterKind.MODULES_TO_SAVE}),
        (
            {**Q, "modules_to_save": ["k_proj"], "use_dora": True},
            {AdapterKind.MODULES_TO_SAVE, AdapterKind.DORA},
        ),
        ({"target_modules": ["embed_tokens"]}, {AdapterKind.EMBEDDING}),
        ({"target_modules": ["q_proj", "lm_head"]}, {AdapterKind.LM_HEAD}),
        ({**Q, "trainable_token_indices": [7, 3]}, {AdapterKind.TOKENS}),
    ],
)
def test_an_adapter_names_its_parts(
    qwen2: BaseModules, tmp_path: Path, fields: dict[str, Any], kinds: set[AdapterKind]
) -> None:
    folder = save_adapter(tmp_path / "a", "qwen2", **fields)
    adapter = read_adapter(qwen2, folder)
    assert adapter.registry_entry("/a").kinds == kinds


PAGE = (Path(__file__).parents[4] / "ops/docs/adapters.md").read_text()


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(LoraConfig)])
def test_the_documentation_mentions_the_field(field: str) -> None:
    assert f"`{field}`" in PAGE or f"`{field} " in PAGE
