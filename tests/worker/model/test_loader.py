"""Loading base models, and refusing those that can't be served exactly."""

import json
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from slow_cases import slow_unless
from tiny import ARCHITECTURES, save_tiny_model, tiny_model
from torch import nn
from transformers import PreTrainedModel

from shared.errors import ModelRejected
from worker.model.loader import load_model, prepare_model
from worker.model.loading.device import pick_device

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


VLLM = "use --engine vllm"
KINDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown": ({"model_type": "zeta9"}, ["model_type 'zeta9'", "upgrade transformers", VLLM]),
    "own code": (
        {"model_type": "zeta9", "auto_map": {"AutoConfig": "configuration_zeta.ZetaConfig"}},
        ["zeta9 needs Python code from the model's repository", VLLM],
    ),
    "own code of a known type": (
        {"model_type": "clip", "auto_map": {"AutoModelForCausalLM": "modeling_clip.Clip"}},
        ["clip needs Python code from the model's repository", VLLM],
    ),
    "images": (
        {"model_type": "gemma3"},
        ["multimodal models aren't served", "gemma3 also takes images, video or sound", VLLM],
    ),
    "images, in a wrapper": ({"model_type": "llava"}, ["llava also takes images", VLLM]),
    "chunks": ({"model_type": "llama4_text"}, ["llama4_text use chunked_attention", VLLM]),
    "chunks and images": (
        {"model_type": "llama4"},
        ["layers of llama4 use chunked_attention", VLLM],
    ),
    "recurrence": ({"model_type": "qwen3_next"}, ["qwen3_next use linear_attention", VLLM]),
    "media of an unknown type": (
        {"model_type": "zeta9_vl", "vision_config": {}},
        ["multimodal models aren't served", "zeta9_vl also takes images", VLLM],
    ),
    "images, in one part": (
        {"model_type": "phi4_multimodal"},
        ["multimodal models aren't served", "phi4_multimodal also takes images", VLLM],
    ),
    "sound": ({"model_type": "audioflamingo3"}, ["audioflamingo3 also takes images", VLLM]),
}
WITHOUT_ADVICE: dict[str, tuple[dict[str, Any], str]] = {
    "encoder": ({"model_type": "t5"}, "t5 has an encoder and a decoder"),
    "encoder of a known type": ({"model_type": "bart"}, "bart has an encoder and a decoder"),
    "two parts for text": ({"model_type": "musicgen"}, "musicgen has an encoder and a decoder"),
    "melody": ({"model_type": "musicgen_melody"}, "musicgen_melody has an encoder and a decoder"),
    "no language model": ({"model_type": "vit"}, "vit isn't a causal language model"),
    "embeddings of images": ({"model_type": "clip"}, "clip isn't a causal language model"),
}
"""Models that no engine serves: config.json, and a part of the message."""


@pytest.mark.parametrize("kind", KINDS)
def test_the_refusal_names_the_model_and_the_reason(kind: str, tmp_path: Path) -> None:
    fields, parts = KINDS[kind]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ModelRejected) as error:
        load_model(str(tmp_path))
    [line] = str(error.value).splitlines()
    for part in [f"--model {tmp_path}", *parts]:
        assert part in line


@pytest.mark.parametrize("kind", WITHOUT_ADVICE)
def test_the_other_engine_is_not_suggested_for_models_that_it_cannot_serve(
    kind: str, tmp_path: Path
) -> None:
    fields, part = WITHOUT_ADVICE[kind]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ModelRejected) as error:
        load_model(str(tmp_path))
    [line] = str(error.value).splitlines()
    assert line.startswith(f"--model {tmp_path}: {part}")
    assert "--engine" not in line


def test_an_adapter_is_not_a_base_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelRejected, match="this is a LoRA adapter; name it in --adapters"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("text", ["[]", "{", "{}", '{"model_type": 3}'])
def test_a_broken_configuration_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelRejected, match="AutoConfig: "):
        load_model(str(tmp_path))


def test_the_cpu_is_always_there() -> None:
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_torch_for_cpus_cannot_use_gpus(device: str) -> None:
    with pytest.raises(ModelRejected) as caught:
        pick_device(device)
    message = str(caught.value)
    assert message.startswith(f"--device {device}: torch {torch.__version__} was built for CPUs")
    assert "pip install --force-reinstall torch" in message
    assert message.endswith("or use --device cpu")


@pytest.mark.skipif(torch.version.cuda is None, reason="this torch has no CUDA")
def test_a_gpu_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ModelRejected, match=r"--device cuda:99: .* or use --device cpu"):
        pick_device("cuda:99")


def test_an_unknown_device_is_refused_with_the_possible_ones() -> None:
    with pytest.raises(ModelRejected, match="--device nonsense: no such device; use auto, cpu"):
        pick_device("nonsense")


WEIGHTS = "model.safetensors"


def test_the_whole_model_is_never_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(*_: object) -> None:
        raise AssertionError("the model is copied after it was loaded")

    save_tiny_model(tmp_path)
    monkeypatch.setattr(nn.Module, "_apply", copy)
    assert load_model(str(tmp_path), dtype="bfloat16", device="cpu").dtype == torch.bfloat16


def test_missing_weights_are_named(tmp_path: Path) -> None:
    weights = load_file(save_tiny_model(tmp_path) / WEIGHTS)
    kept = {name: weight for name, weight in weights.items() if ".layers.1." not in name}
    save_file(kept, tmp_path / WEIGHTS, metadata={"format": "pt"})
    message = r"lack the weights model\.layers\.1\.input_layernorm\.weight, .* and 6 more; download"
    with pytest.raises(ModelRejected, match=message):
        load_model(str(tmp_path), dtype="float32")


def test_a_weight_of_another_shape_is_named(tmp_path: Path) -> None:
    weights = load_file(save_tiny_model(tmp_path) / WEIGHTS)
    name = "model.layers.0.mlp.up_proj.weight"
    weights[name] = weights[name].t().contiguous()
    save_file(weights, tmp_path / WEIGHTS, metadata={"format": "pt"})
    message = r"layers\.0\.mlp\.up_proj\.weight has the shape \[64, 96\], .* says \[96, 64\]"
    with pytest.raises(ModelRejected, match=message):
        load_model(str(tmp_path), dtype="float32")


def test_tied_weights_are_not_missing(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(folder / WEIGHTS)
    loaded = load_model(str(folder), dtype="float32")
    assert loaded.model.lm_head.weight.shape == loaded.model.model.embed_tokens.weight.shape


def test_a_model_that_does_not_fit_on_the_device_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.\nMore.")

    save_tiny_model(tmp_path)
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", no_memory)
    with pytest.raises(
        ModelRejected, match=r"doesn't fit into the memory of cpu .*20 MiB\.\); use"
    ):
        load_model(str(tmp_path), device="cpu")


def test_a_model_whose_forward_fails_is_refused_by_name() -> None:
    model = tiny_model()

    def fail(*_: object, **__: object) -> None:
        raise KeyError("pixel_values")

    model.model.layers[1].mlp.forward = fail
    message = (
        r"the native engine can't run LlamaForCausalLM \(KeyError: 'pixel_values'\); use --eng"
    )
    with pytest.raises(ModelRejected, match=message):
        prepare_model(model, None, name="tiny", digest="", source="tiny")


def test_a_window_that_a_layer_applies_by_its_mask_alone_is_refused() -> None:
    windows = {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    model = tiny_model("qwen2_moe", **windows, **experts)
    with pytest.raises(ModelRejected, match=r"layer 0 of Qwen2MoeFor.* its sliding window \(64\)"):
        prepare_model(model, None, name="tiny", digest="", source="tiny")
