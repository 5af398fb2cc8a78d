"""Bases that bitsandbytes quantised answer as transformers + PEFT over the dequantised weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import engine_of, greedy_request, random_prompt, run
from quantised import CONFIGS, WEIGHTS, quantise_folder
from reference import check_greedy_along, logits_along, with_adapter
from safetensors.torch import load_file, save_file
from tiny import save_adapter, save_tiny_model, tiny_model

from shared.errors import ModelRejected
from worker.model.loader import load_model
from worker.model.loading.architecture import read_config
from worker.model.loading.weights import load_weights

ADAPTER = {"r": 8, "target_modules": "all-linear"}
NUM_TOKENS = 24
CPU = torch.device("cpu")


def loaded_weights(folder: Path, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Return the weights of the model in `folder` as they are loaded."""
    config = read_config(str(folder), folder)
    return load_weights(str(folder), folder, config, dtype=dtype, device=CPU).state_dict()


def reference(weights: dict[str, torch.Tensor], adapter: Path | None = None) -> Any:
    """Return the tiny model with `weights`, and with an adapter if one is given."""
    model = tiny_model()
    model.load_state_dict({name: weight.float() for name, weight in weights.items()})
    return with_adapter(model, adapter) if adapter else model


@pytest.mark.parametrize("kind", ["nf4 twice", "int8"])
def test_answers_equal_those_over_the_dequantised_weights(kind: str, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "base")
    weights = quantise_folder(folder, kind)
    adapter = save_adapter(tmp_path / "adapter", **ADAPTER)
    loaded = load_model(str(folder), dtype="float32", device="cpu")
    engine, versions = engine_of(loaded, {"a": adapter})
    prompts = [random_prompt(seed, 20) for seed in range(4)]
    requests = [
        greedy_request(str(i), prompt, NUM_TOKENS, versions["a"] if i % 2 else None)
        for i, prompt in enumerate(prompts)
    ]
    answers = run(engine, requests)
    models = [reference(weights), reference(weights, adapter)]
    for i, prompt in enumerate(prompts):
        tokens = answers[requests[i].id]
        check_greedy_along(logits_along(models[i % 2], prompt, tokens), tokens)
    assert answers[requests[0].id] != answers[requests[1].id]


@pytest.mark.parametrize("kind", CONFIGS)
def test_weights_are_dequantised_to_the_bit(kind: str, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    weights = quantise_folder(folder, kind)
    loaded = loaded_weights(folder)
    assert loaded.keys() == weights.keys()
    for name, weight in weights.items():
        assert torch.equal(loaded[name], weight.float()), name


def test_quantised_experts_are_merged_as_transformers_does(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, "mixtral")
    weights = quantise_folder(folder, "nf4 twice")
    experts = loaded_weights(folder)["model.layers.1.mlp.experts.down_proj"]
    for number, expert in enumerate(experts):
        name = f"model.layers.1.block_sparse_moe.experts.{number}.w2.weight"
        assert torch.equal(expert, weights[name].float())


def test_the_model_computes_in_the_chosen_dtype(tmp_path: Path) -> None:
    quantise_folder(save_tiny_model(tmp_path), "nf4", dtype=torch.float16)
    loaded = loaded_weights(tmp_path, torch.bfloat16)
    assert {weight.dtype for weight in loaded.values()} == {torch.bfloat16}


def test_weights_stored_for_fsdp_are_read(tmp_path: Path) -> None:
    weights = quantise_folder(save_tiny_model(tmp_path), "nf4", storage="bfloat16")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(loaded_weights(tmp_path)[name], weights[name].float())


def test_sharded_files_are_read(tmp_path: Path) -> None:
    weights = quantise_folder(save_tiny_model(tmp_path), "nf4 twice")
    stored = load_file(tmp_path / WEIGHTS)
    names = sorted(stored)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: stored[name] for name in part}, tmp_path / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    (tmp_path / WEIGHTS).rename(tmp_path / "unused")
    index = tmp_path / f"{WEIGHTS}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    name = "model.layers.1.mlp.down_proj.weight"
    assert torch.equal(loaded_weights(tmp_path)[name], weights[name].float())


def test_end_tokens_of_the_generation_config_are_kept(tmp_path: Path) -> None:
    quantise_folder(save_tiny_model(tmp_path), "nf4")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    assert load_model(str(tmp_path), dtype="float32").eos_ids == {2, 7}


STATE = ".q_proj.weight.quant_state.bitsandbytes__nf4"
BROKEN = {
    "absmax": ("nf4", ".q_proj.weight.absmax", lambda t: t[:-1], "absmax doesn't have 64 values"),
    "packed": ("nf4", ".q_proj.weight", lambda t: t[:-1], "weight doesn't have the shape"),
    "state": ("nf4", STATE, lambda t: t[:-5], "can't be read"),
    "missing": ("nf4", ".q_proj.weight.quant_map", lambda _: None, r"quant_map is missing"),
    "old layout": ("int8", "weight_format", lambda t: t + 2, r"isn't 0; save the model again"),
}


@pytest.mark.parametrize("part", BROKEN)
def test_tensors_that_do_not_fit_together_are_refused(part: str, tmp_path: Path) -> None:
    kind, suffix, change, message = BROKEN[part]
    quantise_folder(save_tiny_model(tmp_path), kind)
    stored = load_file(tmp_path / WEIGHTS)
    name = next(name for name in stored if name.endswith(suffix))
    changed = change(stored.pop(name))
    kept = {} if changed is None else {name: changed.clone()}
    save_file({**stored, **kept}, tmp_path / WEIGHTS)
    with pytest.raises(ModelRejected, match=message):
        load_model(str(tmp_path), dtype="float32")


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("awq", "AWQ"),
        ("gptq", "GPTQ"),
        ("fp8", "FP8"),
        ("mxfp4", "MXFP4"),
        ("compressed-tensors", "compressed-tensors"),
        ("novel", "novel"),
    ],
)
def test_other_methods_are_refused_and_lead_to_vllm(method: str, name: str, tmp_path: Path) -> None:
    config_path = save_tiny_model(tmp_path) / "config.json"
    config = json.loads(config_path.read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4}
    config_path.write_text(json.dumps(config))
    message = (
        f"--model {tmp_path} is quantised with {name}, which the native engine can't compute: "
        "use --engine vllm"
    )
    with pytest.raises(ModelRejected) as error:
        load_model(str(tmp_path), dtype="float32")
    assert str(error.value) == message
