"""Loading base models, and refusing those that can't be served exactly."""

import shutil
from itertools import product
from pathlib import Path

import pytest
import torch
from slow_cases import slow_unless
from tiny import ARCHITECTURES, save_tiny_model, tiny_model
from transformers import PreTrainedModel

from shared.errors import ModelRejected
from worker.model.loader import load_model, prepare_model

MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16}
SUPPORTED = {
    "mistral": {"sliding_window": 8},
    "gemma3_text": {"head_dim": 16, "sliding_window": 8},
    "phi": {},
    "phi3": {},
    "olmo2": {},
    "glm4": {"head_dim": 16},
    "starcoder2": {},
    "qwen3_moe": MOE,
    "gpt2": {},
    "opt": {},
    "smollm3": {},
    "granite": {},
    "cohere2": {},
}
REFUSED = {
    "falcon": ({}, "FalconForCausalLM doesn't send each of its 2 layers"),
    "bloom": ({}, "BloomForCausalLM doesn't send each of its 2 layers"),
    "qwen3_next": ({}, "Qwen3NextForCausalLM doesn't send each of its 2 layers"),
    "gpt_oss": ({"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16}, "s_aux"),
}


def prepare(model: PreTrainedModel) -> None:
    prepare_model(model, None, name="tiny", digest="0" * 64, source="tiny")


@pytest.mark.parametrize(
    ("model_type", "dtype"),
    slow_unless(
        lambda model_type, dtype: (model_type in SUPPORTED) == (dtype == torch.bfloat16),
        product([*ARCHITECTURES, *SUPPORTED], [torch.float32, torch.bfloat16]),
    ),
    ids=str,
)
def test_packed_requests_equal_each_request_alone(model_type: str, dtype: torch.dtype) -> None:
    # The usual deviation of weights. With the larger one of other tests, bfloat16 rounds too much.
    overrides = {"initializer_range": 0.02, **SUPPORTED.get(model_type, {})}
    prepare(tiny_model(model_type, **overrides).to(dtype))


@pytest.mark.parametrize("model_type", REFUSED)
def test_a_model_whose_logits_depend_on_packing_is_refused_by_name(model_type: str) -> None:
    overrides, reason = REFUSED[model_type]
    with pytest.raises(ModelRejected, match=reason):
        prepare(tiny_model(model_type, **overrides))


@pytest.mark.parametrize("model_type", ["bert", "roberta", "electra"])
def test_a_model_that_is_not_causal_is_refused_without_advice_to_use_vllm(model_type: str) -> None:
    with pytest.raises(ModelRejected, match=r"isn't causal") as error:
        prepare(tiny_model(model_type))
    assert "--engine" not in str(error.value)


def test_vllm_is_suggested_on_a_condition_if_a_model_computes_attention_by_itself() -> None:
    with pytest.raises(ModelRejected, match=r"; use --engine vllm if vLLM knows this model$"):
        prepare(tiny_model("falcon"))


def test_a_model_that_returns_the_logits_of_all_tokens_is_refused() -> None:
    model = tiny_model("llama")
    forward = model.forward
    model.forward = lambda *args, logits_to_keep=0, **kwargs: forward(*args, **kwargs)
    with pytest.raises(ModelRejected, match="logits of the requested tokens alone"):
        prepare(model)


def test_name_context_and_end_tokens_are_read_from_the_folder(tmp_path: Path) -> None:
    loaded = load_model(str(save_tiny_model(tmp_path / "my-model")), dtype="float32", device="cpu")
    assert (loaded.name, loaded.max_model_len, loaded.eos_ids) == ("my-model", 512, {2})
    assert (loaded.dtype, loaded.device.type) == (torch.float32, "cpu")


def test_the_digest_depends_on_the_weights(tmp_path: Path) -> None:
    folders = [save_tiny_model(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    same = shutil.copytree(folders[0], tmp_path / "same")
    digests = [load_model(str(f), dtype="float32").digest for f in [*folders, same]]
    assert digests[0] != digests[1]
    assert digests[0] == digests[2]


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_position_encodings_that_depend_on_the_batch_are_refused(tmp_path: Path, kind: str) -> None:
    rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0}
    rope |= {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8} if kind == "longrope" else {}
    folder = save_tiny_model(tmp_path, rope_parameters=rope, original_max_position_embeddings=128)
    with pytest.raises(ModelRejected, match=f"rope_type {kind}"):
        load_model(str(folder), dtype="float32")


@pytest.mark.parametrize("source", ["/no/such/folder", "./neither", "~/nor/this", "a/b/c"])
def test_the_error_for_a_missing_folder_names_it(source: str) -> None:
    with pytest.raises(ModelRejected, match="this folder doesn't exist"):
        load_model(source)


def test_the_error_for_a_failed_download_names_the_hub_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelRejected, match="--model some/model: neither a folder nor a hub id"):
        load_model("some/model")


def test_a_truncated_weights_file_is_refused(tmp_path: Path) -> None:
    weights = save_tiny_model(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelRejected, match=r"--model .*: AutoModelForCausalLM: "):
        load_model(str(tmp_path), dtype="float32")


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match="AutoConfig: "):
        load_model(str(tmp_path))


def test_an_unknown_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match="--device abacus"):
        load_model(str(save_tiny_model(tmp_path)), device="abacus")
