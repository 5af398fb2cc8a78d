"""Loading base models, and refusing those that can't be served exactly."""

import hashlib
import json
import shutil
from itertools import product
from pathlib import Path
from threading import Barrier
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from engines import load
from safetensors.torch import load_file, save_file
from slow_cases import slow_unless
from tiny import ARCHITECTURES, CHAT_TEMPLATE, save_tiny_model, tiny_model
from torch import nn

from shared.errors import ModelRejected
from worker.model.loader import load_model
from worker.model.loading import folder as folder_module
from worker.model.loading.device import pick_device
from worker.model.loading.folder import digest_of
from worker.model.loading.tokenizer import load_tokenizer

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
    "gpt_oss": {},
    "granite_swa": {},
    "llama4_text": {},
    "gemma3n_text": {},
}
REFUSED = {
    "bloom": (
        {},
        "BloomForCausalLM doesn't send each of its 2 layers.*; try --engine vllm if vLLM knows "
        "this model$",
    ),
    "falcon_mamba": ({}, "FalconMambaForCausalLM computes the rest of a prompt differently"),
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


def test_a_model_that_hides_its_window_fails_or_returns_all_logits_is_refused() -> None:
    windows = {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}
    model = tiny_model("qwen2_moe", **windows, **MOE)
    with pytest.raises(ModelRejected, match=r"layer 0 of Qwen2MoeFor.* its sliding window \(64\)"):
        load(model)
    model = tiny_model()
    forward = model.forward
    model.forward = lambda *args, logits_to_keep=0, **kwargs: forward(*args, **kwargs)
    with pytest.raises(ModelRejected, match="logits of the requested tokens alone"):
        load(model)
    model = tiny_model()
    model.model.layers[1].mlp.forward = Mock(side_effect=KeyError("pixel_values"))
    message = r"native engine can't run LlamaForCausalLM \(KeyError: 'pixel_values'\); try --eng"
    with pytest.raises(ModelRejected, match=message):
        load(model)


def test_name_context_end_tokens_and_a_digest_of_the_weights_are_read_from_the_folder(
    tmp_path: Path,
) -> None:
    folder = save_tiny_model(tmp_path / "my-model")
    loaded = load_model(str(folder), dtype="float32", device="cpu")
    assert (loaded.name, loaded.max_model_len, loaded.eos_ids) == ("my-model", 512, {2})
    assert (loaded.dtype, loaded.device.type) == (torch.float32, "cpu")
    others = shutil.copytree(folder, tmp_path / "same"), save_tiny_model(tmp_path / "1", seed=1)
    same, other = (load_model(str(each), dtype="float32").digest for each in others)
    assert same == loaded.digest != other


def test_the_template_of_a_processor_is_used_if_the_tokenizer_has_none(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    (folder / "chat_template.json").write_text('{"chat_template": "processor"}')
    assert load_tokenizer("x", folder).chat_template == CHAT_TEMPLATE
    (folder / "chat_template.jinja").unlink()
    assert load_tokenizer("x", folder).chat_template == "processor"
    (folder / "chat_template.json").write_text('{"chat_template": 3}')
    with pytest.raises(ModelRejected, match=r"AutoTokenizer: chat_template\.json"):
        load_tokenizer("x", folder)


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_position_encodings_that_depend_on_the_batch_are_refused(tmp_path: Path, kind: str) -> None:
    rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0}
    rope |= {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8} if kind == "longrope" else {}
    save_tiny_model(tmp_path, rope_parameters=rope, original_max_position_embeddings=128)
    refused(f"rope_type {kind}", tmp_path)


def test_the_error_for_a_missing_model_names_the_folder_or_the_hub_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for source in ("/no/such/folder", "./neither", "~/nor/this", "a/b/c"):
        with pytest.raises(ModelRejected, match="this folder doesn't exist"):
            load_model(source)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = "--model some/model: there is no such folder, and the Hugging Face hub's cache"
    refused(message, Path("some/model"))


CODE = "needs Python code from the model's repository"
REFUSED_CONFIGS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("zeta9", {}, ["model_type 'zeta9'", "upgrade transformers"]),
    ("zeta9", {"auto_map": {"AutoConfig": "configuration_zeta.ZetaConfig"}}, [f"zeta9 {CODE}"]),
    ("clip", {"auto_map": {"AutoModelForCausalLM": "modeling_clip.Clip"}}, [f"clip {CODE}"]),
    ("deepseek_v32", {}, ["deepseek_v32 use indexed_attention"]),
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
NOT_CAUSAL = {
    **dict.fromkeys(("t5", "bart", "musicgen", "musicgen_melody"), "has an encoder and a decoder"),
    **dict.fromkeys(("vit", "clip"), "isn't a causal language model"),
}


@pytest.mark.parametrize(
    ("model_type", "fields", "parts", "suggests_vllm"),
    [
        *((*case, True) for case in REFUSED_CONFIGS),
        *((each, {}, [f": {each} {reason}"], False) for each, reason in NOT_CAUSAL.items()),
    ],
)
def test_the_refusal_names_the_model_the_reason_and_vllm_if_that_may_serve_it(
    model_type: str, fields: dict[str, Any], parts: list[str], suggests_vllm: bool, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, **fields}))
    [line] = refused(f"^--model {tmp_path}", tmp_path).splitlines()
    assert all(part in line for part in parts)
    assert ("try --engine vllm" in line) is ("--engine" in line) is suggests_vllm


@pytest.mark.parametrize("text", [None, "[]", "{", "{}", '{"model_type": 3}'])
def test_a_missing_or_broken_configuration_and_an_adapters_are_refused(
    text: str | None, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    refused("AutoConfig: ", tmp_path)
    (tmp_path / "config.json").unlink(missing_ok=True)
    (tmp_path / "adapter_config.json").write_text("{}")
    refused("this is a LoRA adapter; name it in --adapters", tmp_path)


HAS_CUDA = torch.version.cuda is not None


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_the_refusal_of_a_device_names_the_possible_ones(device: str, tmp_path: Path) -> None:
    assert pick_device("cpu") == torch.device("cpu")
    message = "--device nonsense: no such device; use auto, cpu"
    refused(message, save_tiny_model(tmp_path), device="nonsense")
    with pytest.raises(ModelRejected) as caught:
        pick_device("cuda:99" if HAS_CUDA else device)
    text = str(caught.value)
    assert text.endswith("or use --device cpu")
    if not HAS_CUDA:
        assert text.startswith(f"--device {device}: torch {torch.__version__} was built for CPUs")
        assert "pip install --force-reinstall torch" in text


WEIGHTS = "model.safetensors"


def test_missing_misshapen_and_truncated_weights_are_refused_and_named(tmp_path: Path) -> None:
    file = save_tiny_model(tmp_path) / WEIGHTS
    weights, content = load_file(file), file.read_bytes()
    kept = {name: weight for name, weight in weights.items() if ".layers.1." not in name}
    save_file(kept, file, metadata={"format": "pt"})
    message = r"lack the weights model\.layers\.1\.input_layernorm\.weight, .* and 6 more; download"
    refused(message, tmp_path)
    name = "model.layers.0.mlp.up_proj.weight"
    turned = weights | {name: weights[name].t().contiguous()}
    save_file(turned, file, metadata={"format": "pt"})
    message = r"layers\.0\.mlp\.up_proj\.weight has the shape \[64, 96\], .* says \[96, 64\]"
    refused(message, tmp_path)
    file.write_bytes(content[:-100])
    refused(r"--model .*: AutoModelForCausalLM: ", tmp_path)


def test_a_model_is_never_copied_and_tied_weights_are_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_model(tmp_path, tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(folder / WEIGHTS)
    copying = AssertionError("the model is copied after it was loaded")
    monkeypatch.setattr(nn.Module, "_apply", Mock(side_effect=copying))
    loaded = load_model(str(folder), dtype="bfloat16", device="cpu")
    assert loaded.dtype == torch.bfloat16
    assert loaded.model.lm_head.weight.shape == loaded.model.model.embed_tokens.weight.shape


def test_a_model_that_does_not_fit_on_the_device_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.\nMore.")
    save_tiny_model(tmp_path)
    from_pretrained = "transformers.PreTrainedModel.from_pretrained"
    monkeypatch.setattr(from_pretrained, Mock(side_effect=error))
    message = r"doesn't fit into the memory of cpu .*20 MiB\.\); use"
    refused(message, tmp_path, device="cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "b.safetensors").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "a.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "notes.md").write_text("not part of the model")
    return tmp_path


def digest(folder: Path) -> str:
    with digest_of("x", folder) as found:
        return found.result()


def test_the_digest_of_a_folder_never_changes_and_names_a_file_that_cannot_be_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = hashlib.sha256()
    for name in ("a.safetensors", "b.safetensors", "config.json"):
        content = (folder / name).read_bytes()
        expected.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    assert digest(folder) == expected.hexdigest()
    monkeypatch.setattr(folder_module, "CHUNK_BYTES", 1000)
    assert digest(folder) == expected.hexdigest(), "of a file that is larger than a chunk"
    (folder / "tokenizer.json").symlink_to(folder / "missing")
    with pytest.raises(ModelRejected, match=r"--model x: .*tokenizer\.json can't be read"):
        digest(folder)
    with pytest.raises(RuntimeError), digest_of("x", folder):
        raise RuntimeError  # the threads end, too


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
