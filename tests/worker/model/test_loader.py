"""Loading base models, and refusing those that can't be served exactly."""

import hashlib
import json
import shutil
from itertools import product
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch
from engines import load
from safetensors.torch import load_file, save_file
from slow_cases import slow_unless
from tiny import ARCHITECTURES, save_tiny_model, tiny_model
from torch import nn

from shared.errors import ModelRejected
from worker.model.loader import load_model
from worker.model.loading import folder as folder_module
from worker.model.loading.device import pick_device
from worker.model.loading.folder import digest_of

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
    "falcon": (
        {},
        "FalconForCausalLM doesn't send each of its 2 layers.*; use --engine vllm if vLLM knows "
        "this model$",
    ),
    "bloom": ({}, "BloomForCausalLM doesn't send each of its 2 layers"),
    "qwen3_next": ({}, "Qwen3NextForCausalLM doesn't send each of its 2 layers"),
    "gpt_oss": ({"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16}, "s_aux"),
}


def refused(message: str, folder: Path, **options: Any) -> str:
    """Check that the model in `folder` is refused with this message, and return all of it."""
    with pytest.raises(ModelRejected, match=message) as error:
        load_model(str(folder), **{"dtype": "float32", **options})
    return str(error.value)


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
    load(tiny_model(model_type, **overrides).to(dtype))


@pytest.mark.parametrize("model_type", REFUSED)
def test_a_model_whose_logits_depend_on_packing_is_refused_by_name(model_type: str) -> None:
    overrides, reason = REFUSED[model_type]
    with pytest.raises(ModelRejected, match=reason):
        load(tiny_model(model_type, **overrides))


@pytest.mark.parametrize("model_type", ["bert", "roberta", "electra"])
def test_a_model_that_is_not_causal_is_refused_without_advice_to_use_vllm(model_type: str) -> None:
    with pytest.raises(ModelRejected, match=r"isn't causal") as error:
        load(tiny_model(model_type))
    assert "--engine" not in str(error.value)


def test_a_model_that_returns_the_logits_of_all_tokens_is_refused() -> None:
    model = tiny_model("llama")
    forward = model.forward
    model.forward = lambda *args, logits_to_keep=0, **kwargs: forward(*args, **kwargs)
    with pytest.raises(ModelRejected, match="logits of the requested tokens alone"):
        load(model)


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
    save_tiny_model(tmp_path, rope_parameters=rope, original_max_position_embeddings=128)
    refused(f"rope_type {kind}", tmp_path)


@pytest.mark.parametrize("source", ["/no/such/folder", "./neither", "~/nor/this", "a/b/c"])
def test_the_error_for_a_missing_folder_names_it(source: str) -> None:
    with pytest.raises(ModelRejected, match="this folder doesn't exist"):
        load_model(source)


def test_the_error_for_a_failed_download_names_the_hub_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused("--model some/model: neither a folder nor a hub id", Path("some/model"))


CODE = "needs Python code from the model's repository"
REFUSED_CONFIGS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("zeta9", {}, ["model_type 'zeta9'", "upgrade transformers"]),
    ("zeta9", {"auto_map": {"AutoConfig": "configuration_zeta.ZetaConfig"}}, [f"zeta9 {CODE}"]),
    ("clip", {"auto_map": {"AutoModelForCausalLM": "modeling_clip.Clip"}}, [f"clip {CODE}"]),
    ("gemma3", {}, ["multimodal models aren't served", "gemma3 also takes images, video or sound"]),
    ("llava", {}, ["llava also takes images"]),
    ("llama4_text", {}, ["llama4_text use chunked_attention"]),
    ("llama4", {}, ["layers of llama4 use chunked_attention"]),
    ("qwen3_next", {}, ["qwen3_next use linear_attention"]),
    (
        "zeta9_vl",
        {"vision_config": {}},
        ["multimodal models aren't served", "zeta9_vl also takes images"],
    ),
    (
        "phi4_multimodal",
        {},
        ["multimodal models aren't served", "phi4_multimodal also takes images"],
    ),
    ("audioflamingo3", {}, ["audioflamingo3 also takes images"]),
]


@pytest.mark.parametrize(("model_type", "fields", "parts"), REFUSED_CONFIGS)
def test_the_refusal_names_the_model_and_the_reason(
    model_type: str, fields: dict[str, Any], parts: list[str], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, **fields}))
    [line] = refused(f"--model {tmp_path}", tmp_path).splitlines()
    for part in [*parts, "use --engine vllm"]:
        assert part in line


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        *((each, "has an encoder and a decoder") for each in ("t5", "bart", "musicgen")),
        ("musicgen_melody", "has an encoder and a decoder"),
        *((each, "isn't a causal language model") for each in ("vit", "clip")),
    ],
)
def test_the_other_engine_is_not_suggested_for_models_that_it_cannot_serve(
    model_type: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    [line] = refused(f"^--model {tmp_path}: {model_type} {reason}", tmp_path).splitlines()
    assert "--engine" not in line


def test_an_adapter_is_not_a_base_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    refused("this is a LoRA adapter; name it in --adapters", tmp_path)


@pytest.mark.parametrize("text", [None, "[]", "{", "{}", '{"model_type": 3}'])
def test_a_missing_or_broken_configuration_is_refused(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    refused("AutoConfig: ", tmp_path)


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


def test_an_unknown_device_is_refused_with_the_possible_ones(tmp_path: Path) -> None:
    message = "--device nonsense: no such device; use auto, cpu"
    refused(message, save_tiny_model(tmp_path), device="nonsense")


WEIGHTS = "model.safetensors"


def test_a_truncated_weights_file_is_refused(tmp_path: Path) -> None:
    weights = save_tiny_model(tmp_path) / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(r"--model .*: AutoModelForCausalLM: ", tmp_path)


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
    refused(message, tmp_path)


def test_a_weight_of_another_shape_is_named(tmp_path: Path) -> None:
    weights = load_file(save_tiny_model(tmp_path) / WEIGHTS)
    name = "model.layers.0.mlp.up_proj.weight"
    weights[name] = weights[name].t().contiguous()
    save_file(weights, tmp_path / WEIGHTS, metadata={"format": "pt"})
    message = r"layers\.0\.mlp\.up_proj\.weight has the shape \[64, 96\], .* says \[96, 64\]"
    refused(message, tmp_path)


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
    message = r"doesn't fit into the memory of cpu .*20 MiB\.\); use"
    refused(message, tmp_path, device="cpu")


def test_a_model_whose_forward_fails_is_refused_by_name() -> None:
    model = tiny_model()

    def fail(*_: object, **__: object) -> None:
        raise KeyError("pixel_values")

    model.model.layers[1].mlp.forward = fail
    message = r"native engine can't run LlamaForCausalLM \(KeyError: 'pixel_values'\); use --eng"
    with pytest.raises(ModelRejected, match=message):
        load(model)


def test_a_window_that_a_layer_applies_by_its_mask_alone_is_refused() -> None:
    windows = {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    model = tiny_model("qwen2_moe", **windows, **experts)
    with pytest.raises(ModelRejected, match=r"layer 0 of Qwen2MoeFor.* its sliding window \(64\)"):
        load(model)


def digest(folder: Path) -> str:
    with digest_of("x", folder) as found:
        return found.result()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "b.safetensors").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "a.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "notes.md").write_text("not part of the model")
    return tmp_path


def test_the_digest_of_a_folder_never_changes(folder: Path) -> None:
    expected = hashlib.sha256()
    for name in ("a.safetensors", "b.safetensors", "config.json"):
        content = (folder / name).read_bytes()
        expected.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    assert digest(folder) == expected.hexdigest()


def test_files_larger_than_a_chunk_are_read_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = digest(folder)
    monkeypatch.setattr(folder_module, "CHUNK_BYTES", 1000)
    assert digest(folder) == expected


def test_files_are_hashed_at_once_and_beside_other_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = Barrier(4)

    def wait_for_the_others(*_: object) -> bytes:
        everyone.wait(10)
        return b""

    monkeypatch.setattr(folder_module, "_sha256", wait_for_the_others)
    with digest_of("x", folder):
        everyone.wait(10)


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").symlink_to(folder / "missing")
    with pytest.raises(ModelRejected, match=r"--model x: .*tokenizer\.json can't be read"):
        digest(folder)


def test_the_threads_end_when_loading_fails(folder: Path) -> None:
    with pytest.raises(RuntimeError), digest_of("x", folder):
        raise RuntimeError
